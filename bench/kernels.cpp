// How fast the kernels are: GB/s of one operand beside memcpy of the same size, which reads one
// operand and writes one. Of folds that is bytes of the destination per second; of codecs bytes of
// the numbers in f32, in blocks of 256 with f32 scales, however few their codes are.
//
// usage: bench_kernels [bytes] [substring] The default size, 256 KiB, is that of a segment, and
// lies in cache as it does for the executor; give 268435456 to measure memory. A substring picks
// rows, for instance "f16 sum" or "int8 encode".
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/prng.hpp"
#include "kernels/kernels.hpp"
#include "kernels/quantize.hpp"

using namespace pyccl;
using namespace pyccl::kernels;

namespace {

constexpr std::size_t source_count_max = 4;

struct Buffers {
  std::vector<std::byte> memory;
  std::byte* operand[source_count_max + 1];  // the last one is the destination
};

// Large arrays of the usual allocators begin 16 bytes into a page, so these do too.
Buffers make_buffers(std::size_t size) {
  constexpr std::size_t page = 4096;
  const std::size_t stride = (size / page + 2) * page;
  Buffers buffers{std::vector<std::byte>(stride * (source_count_max + 1) + page), {}};
  const auto start = reinterpret_cast<std::uintptr_t>(buffers.memory.data());
  std::byte* at = buffers.memory.data() + (page - start % page) + 16;
  for (auto& operand : buffers.operand) {
    operand = at;
    at += stride;
  }
  return buffers;
}

// Numbers near one in every floating type, so that sums stay finite and no lane is subnormal.
void fill(Buffers& buffers, DataType type, std::size_t size) {
  Prng prng(1);
  const std::size_t element = size_of(type);
  for (auto* operand : buffers.operand) {
    for (std::size_t i = 0; i + element <= size; i += element) {
      const float f32 = 1.0f + static_cast<float>(prng.below(1000)) * 1e-4f;
      const double f64 = f32;
      const auto half = static_cast<std::uint16_t>(0x3c00 + prng.below(64));
      const auto brain = static_cast<std::uint16_t>(0x3f80 + prng.below(16));
      const std::uint64_t bits = prng.next();
      const void* value = type == DataType::f32    ? static_cast<const void*>(&f32)
                          : type == DataType::f64  ? static_cast<const void*>(&f64)
                          : type == DataType::f16  ? static_cast<const void*>(&half)
                          : type == DataType::bf16 ? static_cast<const void*>(&brain)
                                                   : static_cast<const void*>(&bits);
      std::memcpy(operand + i, value, element);
    }
  }
}

// The best of several rounds: what the code can do, not what the machine's other tenants leave.
template <class Call>
double gigabytes_per_second(std::size_t size, Call call) {
  using Clock = std::chrono::steady_clock;
  const std::size_t repetitions = std::max<std::size_t>(1, (std::size_t{16} << 20) / size);
  double best = 0;
  for (int round = 0; round < 7; ++round) {
    const auto start = Clock::now();
    for (std::size_t i = 0; i < repetitions; ++i) call();
    const std::chrono::duration<double> seconds = Clock::now() - start;
    best = std::max(best, static_cast<double>(size * repetitions) / seconds.count() * 1e-9);
  }
  return best;
}

struct Row {
  std::size_t source_count;
  bool in_place;
  bool weighted;
  double divisor;
  const char* label;
};

constexpr Row rows[] = {
    {2, true, false, 1, "a+=b"},       {2, false, false, 1, "c=a+b"},
    {4, false, false, 1, "4 sources"}, {4, false, false, 3, "4, / 3"},
    {4, false, false, 4, "4, / 4"},    {4, false, true, 1, "4 weighted"},
};

double measure(const Target& target, DataType type, ReduceOp op, const Row& row, Buffers& buffers,
               std::size_t size) {
  const double weights[source_count_max] = {0.5, 0.25, 0.125, 0.125};
  FoldArguments arguments;
  arguments.destination = buffers.operand[row.in_place ? 0 : source_count_max];
  const std::byte* sources[source_count_max];
  std::copy_n(buffers.operand, source_count_max, sources);
  arguments.sources = {sources, row.source_count};
  if (row.weighted) arguments.weights = {weights, row.source_count};
  arguments.divisor = row.divisor;
  arguments.count = size / size_of(type);
  const auto fold = target.fold[static_cast<int>(type)][static_cast<int>(op)];
  return gigabytes_per_second(size, [&] { fold(arguments); });
}

// If it is wanted: `measure` gives a target's speed.
template <class Measure>
void print_row(const std::string& label, const std::string& wanted, Measure measure) {
  if (label.find(wanted) == std::string::npos) return;
  std::printf("%-30s", label.c_str());
  for (const Target* target : targets()) std::printf("%10.1f", measure(*target));
  std::printf("\n");
}

void run_folds(std::size_t size, const std::string& wanted, Buffers& buffers) {
  for (int type = 0; type < PYCCL_DTYPE_COUNT; ++type) {
    fill(buffers, static_cast<DataType>(type), size);
    for (int op = 0; op < PYCCL_REDOP_COUNT; ++op) {
      if (op == PYCCL_AVG || targets()[0]->fold[type][op] == nullptr) continue;
      const bool divides = op == PYCCL_SUM && is_floating(static_cast<DataType>(type));
      for (const Row& row : rows) {
        if ((row.weighted || row.divisor != 1) && !divides) continue;
        const std::string label = std::string(name_of(static_cast<DataType>(type))) + " " +
                                  std::string(name_of(static_cast<ReduceOp>(op))) + " " + row.label;
        print_row(label, wanted, [&](const Target& target) {
          return measure(target, static_cast<DataType>(type), static_cast<ReduceOp>(op), row,
                         buffers, size);
        });
      }
    }
  }
}

// Numbers of both signs and several magnitudes, as gradients have them; bf16 is the upper half of
// them.
void fill_gradients(std::byte* operand, std::byte* brains, std::size_t count) {
  Prng prng(2);
  for (std::size_t i = 0; i < count; ++i) {
    const float unit = static_cast<float>(prng.below(1 << 20)) * 0x1p-19f - 1.0f;
    const float value = unit * unit * unit;
    std::memcpy(operand + i * sizeof(float), &value, sizeof(float));
    std::memcpy(brains + i * 2, reinterpret_cast<const std::byte*>(&value) + 2, 2);
  }
}

struct CodecRow {
  const char* label;
  void (*run)(const EncodeArguments&, float* sum, const Target&);
  bool brain = false;  // encodes bf16
};

void run_encode(const EncodeArguments& arguments, const Target& target, Rounding rounding,
                float* rounded, DataType dtype = DataType::f32) {
  EncodeArguments encoding = arguments;
  encoding.rounding.mode = rounding;
  encoding.rounded = reinterpret_cast<std::byte*>(rounded);
  encoding.dtype = dtype;
  encode(encoding, target);
}

constexpr CodecRow codec_rows[] = {
    {"encode",
     [](const EncodeArguments& arguments, float*, const Target& target) {
       run_encode(arguments, target, Rounding::nearest, nullptr);
     }},
    {"encode rounded",
     [](const EncodeArguments& arguments, float* sum, const Target& target) {
       run_encode(arguments, target, Rounding::nearest, sum);
     }},
    {"encode stochastic",
     [](const EncodeArguments& arguments, float*, const Target& target) {
       run_encode(arguments, target, Rounding::stochastic, nullptr);
     }},
    {"encode bf16",
     [](const EncodeArguments& arguments, float*, const Target& target) {
       run_encode(arguments, target, Rounding::nearest, nullptr, DataType::bf16);
     },
     true},
    {"decode",
     [](const EncodeArguments& arguments, float* sum, const Target& target) {
       decode({arguments.destination, arguments.format, arguments.count,
               reinterpret_cast<std::byte*>(sum), DataType::f32},
              target);
     }},
    {"accumulate",
     [](const EncodeArguments& arguments, float* sum, const Target& target) {
       accumulate({arguments.destination, arguments.format, arguments.count, sum, 0.5f, false},
                  target);
     }},
};

void run_codecs(std::size_t size, const std::string& wanted, Buffers& buffers) {
  EncodeArguments arguments;
  arguments.source = buffers.operand[0];
  arguments.count = size / sizeof(float);
  arguments.destination = buffers.operand[1];
  auto* sum = reinterpret_cast<float*>(buffers.operand[source_count_max]);
  EncodeArguments brain = arguments;
  brain.source = buffers.operand[2];
  fill_gradients(buffers.operand[0], buffers.operand[2], arguments.count);
  std::fill_n(sum, arguments.count, 0.0f);
  for (int codec = PYCCL_CODEC_NONE + 1; codec < PYCCL_CODEC_COUNT; ++codec) {
    arguments.format.codec = static_cast<Codec>(codec);
    encode(arguments);
    for (const CodecRow& row : codec_rows) {
      const std::string label = std::string(name_of(arguments.format.codec)) + " " + row.label;
      print_row(label, wanted, [&](const Target& target) {
        brain.format = arguments.format;
        const EncodeArguments& given = row.brain ? brain : arguments;
        return gigabytes_per_second(size, [&] { row.run(given, sum, target); });
      });
    }
  }
}

void run(std::size_t size, const std::string& wanted) {
  Buffers buffers = make_buffers(size);
  const double copied = gigabytes_per_second(
      size, [&] { std::memcpy(buffers.operand[source_count_max], buffers.operand[0], size); });
  std::printf("%zu bytes per operand; memcpy %.1f GB/s\n%-30s", size, copied, "");
  for (const Target* target : targets()) std::printf("%10s", std::string(target->name).c_str());
  std::printf("   GB/s of one operand\n");
  run_folds(size, wanted, buffers);
  run_codecs(size, wanted, buffers);
}

}  // namespace

int main(int argument_count, char** arguments) {
  const std::size_t size = argument_count > 1 ? std::strtoull(arguments[1], nullptr, 0) : 256 << 10;
  if (size < 8) {
    std::fprintf(stderr, "usage: bench_kernels [bytes] [substring]\n");
    return 2;
  }
  run(size, argument_count > 2 ? arguments[2] : "");
  return 0;
}
