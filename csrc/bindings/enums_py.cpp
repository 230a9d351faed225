// The enumerations of pyccl.h as dictionaries from name to number: Python's callers pass names.
#include <pybind11/pybind11.h>

#include <string>

#include "bindings/register_py.hpp"
#include "collectives/select.hpp"
#include "kernels/kernels.hpp"
#include "pyccl.h"
#include "runtime/subgroup.hpp"

namespace py = pybind11;

namespace pyccl::bindings {
namespace {

py::dict codes() {
  py::dict names;
  names["ok"] = PYCCL_OK + 0;
  names["invalid_argument"] = PYCCL_INVALID_ARGUMENT + 0;
  names["mismatch"] = PYCCL_MISMATCH + 0;
  names["peer_lost"] = PYCCL_PEER_LOST + 0;
  names["timeout"] = PYCCL_TIMEOUT + 0;
  names["coordinator_unavailable"] = PYCCL_COORDINATOR_UNAVAILABLE + 0;
  names["not_admitted"] = PYCCL_NOT_ADMITTED + 0;
  names["evicted"] = PYCCL_EVICTED + 0;
  names["cancelled"] = PYCCL_CANCELLED + 0;
  names["closed"] = PYCCL_CLOSED + 0;
  names["address_in_use"] = PYCCL_ADDRESS_IN_USE + 0;
  names["limit_exceeded"] = PYCCL_LIMIT_EXCEEDED + 0;
  names["protocol_violation"] = PYCCL_PROTOCOL_VIOLATION + 0;
  names["io"] = PYCCL_IO + 0;
  names["state_sync"] = PYCCL_STATE_SYNC + 0;
  return names;
}

}  // namespace

void register_enums(py::module_& module) {
  py::dict dtypes;
  for (int code = 0; code < PYCCL_DTYPE_COUNT; ++code) {
    dtypes[py::str(std::string(kernels::name_of(static_cast<kernels::DataType>(code))))] = code;
  }
  py::dict reduce_ops;
  for (int code = 0; code < PYCCL_REDOP_COUNT; ++code) {
    reduce_ops[py::str(std::string(kernels::name_of(static_cast<kernels::ReduceOp>(code))))] = code;
  }
  py::dict algorithms;
  for (int code = 0; code < PYCCL_ALGORITHM_COUNT; ++code) {
    const auto algorithm = static_cast<collectives::Algorithm>(code);
    algorithms[py::str(std::string(collectives::name_of(algorithm)))] = code;
  }
  py::dict kinds;
  for (int code = 0; code <= static_cast<int>(collectives::Kind::exchange); ++code) {
    const auto kind = static_cast<collectives::Kind>(code);
    kinds[py::str(std::string(collectives::name_of(kind)))] = code;
  }
  py::dict pair_roles;
  pair_roles["send"] = static_cast<int>(runtime::PairRole::sender);
  pair_roles["recv"] = static_cast<int>(runtime::PairRole::receiver);
  pair_roles["exchange"] = static_cast<int>(runtime::PairRole::partner);
  py::dict on_loss;
  on_loss["retry"] = PYCCL_ON_LOSS_RETRY + 0;
  on_loss["raise"] = PYCCL_ON_LOSS_RAISE + 0;
  py::dict transports;
  transports["auto"] = PYCCL_TRANSPORT_AUTO + 0;
  transports["tcp"] = PYCCL_TRANSPORT_TCP + 0;
  py::dict roles;
  roles["worker"] = PYCCL_WORKER + 0;
  roles["mirror"] = PYCCL_MIRROR + 0;

  py::dict strategies;
  strategies["popular"] = PYCCL_POPULAR + 0;
  strategies["send_only"] = PYCCL_SEND_ONLY + 0;
  strategies["receive_only"] = PYCCL_RECEIVE_ONLY + 0;

  module.attr("codes") = codes();
  module.attr("dtypes") = dtypes;
  module.attr("reduce_ops") = reduce_ops;
  module.attr("algorithms") = algorithms;
  module.attr("on_loss") = on_loss;
  module.attr("roles") = roles;
  module.attr("strategies") = strategies;
  module.attr("transports") = transports;
  module.attr("collectives") = kinds;
  module.attr("pair_roles") = pair_roles;
  module.attr("any_source") = runtime::any_source + 0;
}

}  // namespace pyccl::bindings
