// The table of families.
#include "sim/byte/checks.hpp"

namespace pyccl::sim {

ByteChecks::ByteChecks(ByteWorld& world) {
  families_.push_back(check_byte_views(world));
  families_.push_back(check_byte_results(world));
  families_.push_back(check_byte_outcomes(world));
  families_.push_back(check_byte_accounts(world));
  families_.push_back(check_byte_calls(world));
  families_.push_back(check_byte_progress(world));
  families_.push_back(check_byte_memory(world));
}

}  // namespace pyccl::sim
