/* Preloaded: counts the allocations that are asked for by one library (its own C++ runtime is linked into it). */
#define _GNU_SOURCE
#include <link.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

static uintptr_t first, last; /* addresses of its code */
static atomic_long counted;

static int find(struct dl_phdr_info* info, size_t size, void* name) {
  (void)size;
  if (strstr(info->dlpi_name, name) == NULL) return 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)* part = &info->dlpi_phdr[i];
    if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) continue;
    first = info->dlpi_addr + part->p_vaddr;
    last = first + part->p_memsz;
  }
  return 1;
}

/* From now on those of the library whose file name holds `name`; whether it is loaded. */
int count_allocations_of(char* name) { return dl_iterate_phdr(find, name); }

long allocations(void) { return counted; }

static void count(void* caller) {
  if ((uintptr_t)caller >= first && (uintptr_t)caller < last) ++counted;
}

#define CALLER __builtin_return_address(0)
void* malloc(size_t size) { return count(CALLER), __libc_malloc(size); }
void* calloc(size_t n, size_t size) { return count(CALLER), __libc_calloc(n, size); }
void* realloc(void* p, size_t size) { return count(CALLER), __libc_realloc(p, size); }
void* memalign(size_t to, size_t size) { return count(CALLER), __libc_memalign(to, size); }
void* aligned_alloc(size_t to, size_t size) { return count(CALLER), __libc_memalign(to, size); }
