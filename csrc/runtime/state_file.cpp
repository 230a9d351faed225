// StateFile: read, check, write aside, rename.
#include "runtime/state_file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "protocol/codec.hpp"

namespace pyccl::runtime {

namespace {

constexpr std::array<char, 8> magic = {'p', 'y', 'c', 'c', 'l', '\0', 's', 't'};
constexpr std::uint32_t file_format = 1;
constexpr std::size_t header_bytes = 8 + 4 + 8 + 8;
// A view of all members with all decisions is far below this; a longer file is something else.
constexpr std::size_t file_bytes_max = 256u << 20;

// FNV-1a with 64 bits. Each step is a bijection of the sum, so a single damaged byte always shows.
std::uint64_t checksum(ByteView bytes) {
  std::uint64_t sum = 14695981039346656037ull;
  for (std::byte each : bytes) {
    sum = (sum ^ std::to_integer<std::uint64_t>(each)) * 1099511628211ull;
  }
  return sum;
}

Status system_failure(const std::string& what, int error) {
  return Status(Code::io, what + ": " + std::system_category().message(error));
}

bool write_all(int fd, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return true;
}

Result<Bytes> read_all(int fd, const std::string& path) {
  Bytes bytes;
  std::array<std::byte, 64 * 1024> piece;
  for (;;) {
    const ssize_t got = ::read(fd, piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_failure("can't read the state file " + path, errno);
    if (got == 0) return bytes;
    bytes.insert(bytes.end(), piece.begin(), piece.begin() + got);
    if (bytes.size() > file_bytes_max) {
      return Status(Code::io, "the file " + path + " is too large for a state file of pyccl");
    }
  }
}

Status damaged(const std::string& path, const std::string& how) {
  return Status(Code::io, "the state file " + path + " is damaged (" + how +
                              "); restore it, or remove it once no member of its run is left");
}

// One failed system call while the new file is made: the half-made one is of no use to anybody.
Status give_up(const std::string& temporary, const std::string& what) {
  const Status status = system_failure(what + " " + temporary, errno);
  ::unlink(temporary.c_str());
  return status;
}

std::string directory_of(const std::string& path) {
  const auto parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

Bytes wrap(const Bytes& state) {
  Bytes file(header_bytes);
  std::memcpy(file.data(), magic.data(), magic.size());
  store_little(file.data() + 8, file_format);
  store_little(file.data() + 12, static_cast<std::uint64_t>(state.size()));
  store_little(file.data() + 20, checksum(state));
  file.insert(file.end(), state.begin(), state.end());
  return file;
}

Result<protocol::CoordinatorState> unwrap(ByteView file, const std::string& path) {
  // A file of something else is told from a damaged one, so that nobody removes it on our advice.
  const std::size_t known = std::min(file.size(), magic.size());
  if (known > 0 && std::memcmp(file.data(), magic.data(), known) != 0) {
    return Status(Code::io, "the file " + path + " is no state file of pyccl");
  }
  if (file.size() < header_bytes) return damaged(path, "it is cut off");
  const auto format = load_little<std::uint32_t>(file.data() + 8);
  if (format != file_format) {
    return Status(Code::io, "the state file " + path + " has format " + std::to_string(format) +
                                ", this version of pyccl reads format " +
                                std::to_string(file_format));
  }
  const ByteView state = file.subspan(header_bytes);
  if (load_little<std::uint64_t>(file.data() + 12) != state.size()) {
    return damaged(path, "it is cut off");
  }
  if (load_little<std::uint64_t>(file.data() + 20) != checksum(state)) {
    return damaged(path, "its checksum is wrong");
  }
  auto decoded = protocol::decode_state(state);
  if (!decoded.ok()) return damaged(path, decoded.status().reason());
  return decoded;
}

}  // namespace

StateFile::StateFile(std::string path, FileDescriptor lock)
    : path_(std::move(path)), lock_(std::move(lock)) {}

StateFile::~StateFile() = default;

Result<std::unique_ptr<StateFile>> StateFile::open(const std::string& path) {
  if (path.empty()) return Status(Code::invalid_argument, "the state file's path is empty");
  // As in a user's fresh home, where the usual folder for states does not exist yet.
  std::error_code made;
  std::filesystem::create_directories(directory_of(path), made);
  if (made) {
    return system_failure("can't make the directory of the state file " + path, made.value());
  }
  const std::string lock_path = path + ".lock";
  FileDescriptor lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock.valid()) return system_failure("can't open " + lock_path, errno);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return system_failure("can't lock " + lock_path, errno);
    return Status(Code::io, "the state file " + path + " is in use by another coordinator");
  }
  std::unique_ptr<StateFile> file(new StateFile(path, std::move(lock)));
  if (Status status = file->read(); !status.ok()) return status;
  return file;
}

Status StateFile::read() {
  const FileDescriptor file(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) {
    if (errno == ENOENT) return {};
    return system_failure("can't open the state file " + path_, errno);
  }
  auto bytes = read_all(file.get(), path_);
  if (!bytes.ok()) return bytes.status();
  auto state = unwrap(bytes.value(), path_);
  if (!state.ok()) return state.status();
  found_ = state.take();
  return {};
}

Status StateFile::write(const protocol::CoordinatorState& state) {
  const Bytes bytes = wrap(protocol::encode_state(state));
  // In the same directory, since a rename is atomic only within one file system. The lock is ours,
  // so the name needs no randomness, and what a crash left there is overwritten.
  const std::string temporary = path_ + ".new";
  {
    const FileDescriptor file(
        ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!file.valid()) return system_failure("can't make " + temporary, errno);
    if (!write_all(file.get(), bytes)) return give_up(temporary, "can't write");
    // Before the rename: otherwise a power failure may leave the new name on an empty file.
    if (::fsync(file.get()) != 0) return give_up(temporary, "can't flush");
  }
  if (::rename(temporary.c_str(), path_.c_str()) != 0) return give_up(temporary, "can't rename");
  const std::string directory = directory_of(path_);
  const FileDescriptor parent(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!parent.valid() || ::fsync(parent.get()) != 0) {
    return system_failure("can't flush the directory " + directory, errno);
  }
  return {};
}

}  // namespace pyccl::runtime
