// Which kernels this processor can run, found out once; and what the types and operations are
// called.
#include <string>
#include <vector>

#include "kernels/kernels.hpp"
#include "kernels/targets.hpp"

namespace pyccl::kernels {
namespace {

struct TypeTraits {
  std::string_view name;
  std::size_t size;
  bool floating;
};

// In the order of pyccl_dtype.
constexpr TypeTraits types[PYCCL_DTYPE_COUNT] = {
    {"f32", 4, true}, {"f64", 8, true},  {"f16", 2, true},  {"bf16", 2, true},
    {"i8", 1, false}, {"i16", 2, false}, {"i32", 4, false}, {"i64", 8, false},
    {"u8", 1, false}, {"u16", 2, false}, {"u32", 4, false}, {"u64", 8, false},
};

// In the order of pyccl_redop.
constexpr std::string_view operations[PYCCL_REDOP_COUNT] = {"sum", "avg",  "prod", "min",
                                                            "max", "band", "bor",  "bxor"};

const TypeTraits& traits(DataType type) {
  const auto index = static_cast<std::size_t>(type);
  PYCCL_ASSERT(index < PYCCL_DTYPE_COUNT);
  return types[index];
}

std::vector<const Target*> detect() {
  std::vector<const Target*> found{&scalar_target};
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c") &&
                    __builtin_cpu_supports("fma");
  if (avx2) found.push_back(&avx2_target);
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) found.push_back(&avx512_target);
#elif defined(__aarch64__)
  found.push_back(&neon_target);
#endif
  return found;
}

}  // namespace

std::span<const Target* const> targets() {
  static const std::vector<const Target*> found = detect();
  return found;
}

const Target& best_target() { return *targets().back(); }

std::size_t size_of(DataType type) { return traits(type).size; }
std::string_view name_of(DataType type) { return traits(type).name; }
bool is_floating(DataType type) { return traits(type).floating; }

std::string_view name_of(ReduceOp op) {
  const auto index = static_cast<std::size_t>(op);
  PYCCL_ASSERT(index < PYCCL_REDOP_COUNT);
  return operations[index];
}

Status check_pair(DataType type, ReduceOp op) {
  const auto refuse = [](std::string reason) {
    return Status(Code::invalid_argument, std::move(reason));
  };
  if (static_cast<unsigned>(type) >= PYCCL_DTYPE_COUNT) {
    return refuse("there is no dtype number " + std::to_string(static_cast<unsigned>(type)));
  }
  if (static_cast<unsigned>(op) >= PYCCL_REDOP_COUNT) {
    return refuse("there is no reduce op number " + std::to_string(static_cast<unsigned>(op)));
  }
  const bool bitwise = op == ReduceOp::band || op == ReduceOp::bor || op == ReduceOp::bxor;
  const std::string pair = std::string(name_of(op)) + " of " + std::string(name_of(type));
  if (bitwise && is_floating(type)) {
    return refuse(pair + " is not defined: bit operations take integers only");
  }
  if (op == ReduceOp::avg && !is_floating(type)) {
    return refuse(pair +
                  " is not defined: averages are of floating point; take the sum and divide");
  }
  return {};
}

}  // namespace pyccl::kernels
