// Memory that comes as a DLPack capsule, shown as a Python buffer.
//
// So torch tensors and the like need neither an import of their library nor a path of their own:
// behind this class everything is a buffer. Types that buffers can't spell (bf16) appear as plain
// integers of their size, and `dtype` says what they are.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bindings/register_py.hpp"
#include "pyccl.h"

namespace py = pybind11;

namespace pyccl::bindings {
namespace {

// The binary interface of DLPack 1.0: https://dmlc.github.io/dlpack/latest/c_api.html
struct DlDevice {
  std::int32_t kind;
  std::int32_t id;
};
struct DlType {
  std::uint8_t kind;
  std::uint8_t bits;
  std::uint16_t lanes;
};
struct DlTensor {
  void* data;
  DlDevice device;
  std::int32_t dimensions;
  DlType type;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; none: contiguous
  std::uint64_t byte_offset;
};
struct DlManaged {
  DlTensor tensor;
  void* manager_context;
  void (*deleter)(DlManaged*);
};
struct DlManagedVersioned {
  std::uint32_t major;
  std::uint32_t minor;
  void* manager_context;
  void (*deleter)(DlManagedVersioned*);
  std::uint64_t flags;
  DlTensor tensor;
};
constexpr std::uint64_t flag_read_only = 1;

enum DlDeviceKind : std::int32_t { device_cpu = 1, device_pinned_host = 3 };
enum DlTypeKind : std::uint8_t {
  kind_int = 0,
  kind_uint = 1,
  kind_float = 2,
  kind_bfloat = 4,
  kind_complex = 5,
  kind_bool = 6
};

struct Known {
  DlTypeKind kind;
  std::uint8_t bits;
  int dtype;           // -1: nothing that can be reduced
  const char* format;  // of the buffer
  const char* name;
};
constexpr Known known_types[] = {
    {kind_float, 32, PYCCL_F32, "f", "f32"}, {kind_float, 64, PYCCL_F64, "d", "f64"},
    {kind_float, 16, PYCCL_F16, "e", "f16"}, {kind_bfloat, 16, PYCCL_BF16, "H", "bf16"},
    {kind_int, 8, PYCCL_I8, "b", "i8"},      {kind_int, 16, PYCCL_I16, "h", "i16"},
    {kind_int, 32, PYCCL_I32, "i", "i32"},   {kind_int, 64, PYCCL_I64, "q", "i64"},
    {kind_uint, 8, PYCCL_U8, "B", "u8"},     {kind_uint, 16, PYCCL_U16, "H", "u16"},
    {kind_uint, 32, PYCCL_U32, "I", "u32"},  {kind_uint, 64, PYCCL_U64, "Q", "u64"},
    {kind_bool, 8, -1, "?", "bool"},         {kind_complex, 64, -1, "Zf", "c64"},
    {kind_complex, 128, -1, "Zd", "c128"},
};

bool contiguous(const DlTensor& tensor) {
  if (tensor.strides == nullptr) return true;
  std::int64_t expected = 1;
  for (int i = tensor.dimensions - 1; i >= 0; --i) {
    if (tensor.shape[i] == 0) return true;
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected) return false;
    expected *= tensor.shape[i];
  }
  return true;
}

// Takes over what a capsule holds. Errors are the rest of a sentence that begins with a name.
class DlpackMemory {
 public:
  explicit DlpackMemory(py::capsule capsule) {
    const std::string kind = capsule.name() == nullptr ? "" : capsule.name();
    if (kind == "dltensor_versioned") {
      auto* managed = capsule.get_pointer<DlManagedVersioned>();
      if (managed->major != 1) throw py::value_error("comes in an unknown version of DLPack");
      describe(managed->tensor);
      read_only_ = (managed->flags & flag_read_only) != 0;
      release_ = [managed] {
        if (managed->deleter != nullptr) managed->deleter(managed);
      };
      capsule.set_name("used_dltensor_versioned");
    } else if (kind == "dltensor") {
      auto* managed = capsule.get_pointer<DlManaged>();
      describe(managed->tensor);
      release_ = [managed] {
        if (managed->deleter != nullptr) managed->deleter(managed);
      };
      capsule.set_name("used_dltensor");
    } else {
      throw py::value_error("gave a DLPack capsule that is no tensor or was used before");
    }
  }
  // Only a complete object has taken the tensor over; a capsule that was refused keeps its own.
  ~DlpackMemory() { release_(); }
  DlpackMemory(const DlpackMemory&) = delete;
  DlpackMemory& operator=(const DlpackMemory&) = delete;

  int dtype() const { return known_->dtype; }
  const char* name() const { return known_->name; }

  py::buffer_info buffer() const {
    const auto bytes = static_cast<py::ssize_t>(known_->bits / 8);
    std::vector<py::ssize_t> strides(shape_.size());
    py::ssize_t stride = bytes;
    for (std::size_t i = shape_.size(); i-- > 0;) {
      strides[i] = stride;
      stride *= shape_[i];
    }
    return py::buffer_info(data_, bytes, known_->format, static_cast<py::ssize_t>(shape_.size()),
                           shape_, strides, read_only_);
  }

 private:
  void describe(const DlTensor& tensor) {
    if (tensor.device.kind != device_cpu && tensor.device.kind != device_pinned_host) {
      throw py::value_error("is not in the memory of the CPU");
    }
    for (const Known& known : known_types) {
      if (known.kind == tensor.type.kind && known.bits == tensor.type.bits) known_ = &known;
    }
    if (known_ == nullptr || tensor.type.lanes != 1) {
      throw py::type_error("has elements of an unsupported type");
    }
    if (!contiguous(tensor)) throw py::value_error("is not contiguous");
    shape_.assign(tensor.shape, tensor.shape + tensor.dimensions);
    // An empty tensor may have no memory at all, and a null pointer takes no offset.
    if (tensor.data != nullptr) data_ = static_cast<char*>(tensor.data) + tensor.byte_offset;
  }

  const Known* known_ = nullptr;
  void* data_ = nullptr;
  std::vector<py::ssize_t> shape_;
  bool read_only_ = false;
  std::function<void()> release_;
};

}  // namespace

void register_dlpack(py::module_& module) {
  py::class_<DlpackMemory>(module, "DlpackMemory", py::buffer_protocol())
      .def(py::init<py::capsule>(), py::arg("capsule"))
      .def_property_readonly("dtype", &DlpackMemory::dtype)
      .def_property_readonly("name", &DlpackMemory::name)
      .def_buffer(&DlpackMemory::buffer);
}

}  // namespace pyccl::bindings
