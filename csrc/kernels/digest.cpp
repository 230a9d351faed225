// See digest.hpp.
#include "kernels/digest.hpp"

#include "kernels/kernels.hpp"

namespace pyccl::kernels {

Digest digest_of(ByteView bytes) { return best_target().digest(bytes.data(), bytes.size()); }

}  // namespace pyccl::kernels
