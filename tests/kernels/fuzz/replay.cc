// The fuzzing target without libFuzzer, for any compiler: the corpus, then changes of it, the same ones every time.
// Usage: replay CHANGES CORPUS_FOLDER
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;

std::vector<Bytes> read_all(const char* folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<Bytes> found;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    found.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return found;
}

// One of: a byte changed, a bit flipped, a part of another input put in, the end cut off.
void change(Bytes& bytes, const std::vector<Bytes>& corpus, std::mt19937& random) {
  if (bytes.empty()) return;
  const size_t at = random() % bytes.size();
  const Bytes& other = corpus[random() % corpus.size()];
  switch (random() % 8) {
    case 0:
      bytes.resize(at);
      break;
    case 1:
    case 2:
      std::copy_n(other.begin(), std::min(other.size(), bytes.size() - at), bytes.begin() + static_cast<long>(at));
      break;
    case 3:
    case 4:
      bytes[at] ^= static_cast<uint8_t>(1u << (random() % 8));
      break;
    default:
      bytes[at] = static_cast<uint8_t>(random());
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return 2;
  const std::vector<Bytes> corpus = read_all(arguments[2]);
  if (corpus.empty()) return 2;
  for (const Bytes& bytes : corpus) LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  const int changes = std::atoi(arguments[1]);
  std::mt19937 random(0);
  for (int i = 0; i < changes; ++i) {
    Bytes bytes = corpus[random() % corpus.size()];
    for (unsigned left = 1 + random() % 4; left > 0; --left) change(bytes, corpus, random);
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("replay: %zu packed inputs and %d changes of them, 0 wrong\n", corpus.size(), changes);
  return 0;
}
