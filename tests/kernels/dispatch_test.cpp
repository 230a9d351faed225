// The tables: complete, alike for all targets, and with a reason for each pair that they lack.
#include <doctest/doctest.h>

#include <string>

#include "kernels/kernels.hpp"
#include "kernels/reference.hpp"

namespace pyccl::kernels {

TEST_CASE("targets: scalar comes first, and the best is the last") {
  REQUIRE(!targets().empty());
  CHECK(targets().front()->name == "scalar");
  CHECK(targets().back() == &best_target());
}

TEST_CASE("targets: a fold is there exactly where the pair is accepted") {
  CHECK(all_pairs().size() == 4 * 5 + 8 * 7);
  for (const Target* target : targets()) {
    for (int type = 0; type < PYCCL_DTYPE_COUNT; ++type) {
      for (int op = 0; op < PYCCL_REDOP_COUNT; ++op) {
        const Status status = check_pair(static_cast<DataType>(type), static_cast<ReduceOp>(op));
        CHECK(status.ok() == (target->fold[type][op] != nullptr));
      }
    }
  }
}

TEST_CASE("pairs: those that are refused say why") {
  const Status average = check_pair(DataType::i32, ReduceOp::avg);
  CHECK(average.code() == Code::invalid_argument);
  CHECK(average.reason() ==
        "avg of i32 is not defined: averages are of floating point; take the sum and divide");
  const Status bitwise = check_pair(DataType::bf16, ReduceOp::bxor);
  CHECK(bitwise.code() == Code::invalid_argument);
  CHECK(bitwise.reason() == "bxor of bf16 is not defined: bit operations take integers only");
  CHECK(check_pair(static_cast<DataType>(12), ReduceOp::sum).reason() ==
        "there is no dtype number 12");
  CHECK(check_pair(DataType::f32, static_cast<ReduceOp>(8)).reason() ==
        "there is no reduce op number 8");
}

TEST_CASE("names and sizes follow the enumerations") {
  CHECK(name_of(DataType::bf16) == "bf16");
  CHECK(name_of(DataType::u64) == "u64");
  CHECK(name_of(ReduceOp::bxor) == "bxor");
  const std::size_t sizes[] = {4, 8, 2, 2, 1, 2, 4, 8, 1, 2, 4, 8};
  for (int type = 0; type < PYCCL_DTYPE_COUNT; ++type) {
    CHECK(size_of(static_cast<DataType>(type)) == sizes[type]);
    CHECK(is_floating(static_cast<DataType>(type)) == (type < 4));
  }
}

}  // namespace pyccl::kernels
