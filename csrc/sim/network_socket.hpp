// One end of a simulated stream, as a kernel sees it: it outlives the process's handle, since what
// was written goes on its way also when the stream has been closed.
//
// Bytes in flight wait at the sending end in pieces, each with the time of its arrival; what
// arrives is acknowledged, and only then there is room again. So a dead direction, a reader that
// does not read and a slow link all show in the same way: writes take nothing any more.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "base/bytes.hpp"
#include "sim/network.hpp"
#include "transport/network.hpp"

namespace pyccl::sim {

class Socket : public std::enable_shared_from_this<Socket> {
 public:
  enum class State {
    connecting,
    open,
    failed,  // the process has not closed it yet; what had arrived can still be read
    closed,  // by the process; what is in flight still arrives
  };

  Socket(SimulatedHost& host, std::uint64_t id, std::string remote_host,
         std::string remote_address);

  // ---- the process's calls
  void set_observer(transport::StreamObserver* observer);
  transport::IoResult write(std::span<const ByteView> parts);
  transport::IoResult read(std::span<const MutableByteView> parts);
  void watch_writable(bool on);
  void watch_readable(bool on);
  void end_writes();
  void close();
  void fail(Status reason);

  // ---- a turn of the host
  bool ready() const;
  void call_observer();

  // ---- the network's side
  void dial(std::uint16_t port);
  void open_with(const std::shared_ptr<Socket>& peer);
  // The end is over for this side: refused, reset, timed out.
  void break_off(const Status& status);
  void vanish();  // with its host's power
  void clog(Time until) { clogged_until_ = until; }
  bool flip_bit(std::uint64_t choice);  // false: nothing is on its way
  void resolicit();                     // the direction to the remote host lives again

  std::uint64_t id() const { return id_; }
  State state() const { return state_; }
  const std::string& remote_host() const { return remote_host_; }
  const std::string& remote_address() const { return remote_address_; }
  SimulatedHost& host() const { return host_; }
  std::shared_ptr<Socket> peer() const { return peer_.lock(); }
  bool dialled() const { return dialled_; }
  bool same_host() const { return host_.name() == remote_host_; }
  std::optional<transport::WayMeasurement> measurement() const;
  // Nobody needs it any more: closed, and nothing of it is on its way.
  bool finished() const { return state_ == State::closed && flight_.empty() && !tell_failed_; }

 private:
  struct Piece {
    Time arrival;
    bool waited = false;   // for others before it
    bool entered = false;  // the other host
    Bytes bytes;           // empty: the orderly end
  };

  SimulatedNetwork& network() const { return host_.network_; }
  Time now() const { return network().clock().now(); }
  bool living() const { return state_ == State::connecting || state_ == State::open; }
  std::size_t room() const;
  void touch() { host_.touch(id_); }

  void solicit(std::uint16_t port, std::uint32_t attempt);
  void solicited(std::uint16_t port, std::uint32_t attempt);
  void solicit_again(std::uint16_t port, std::uint32_t attempt);
  void answer(const std::shared_ptr<Socket>& dialler);
  void launch(Bytes bytes);
  void schedule_arrival(Time when);
  void arrive();
  void arrive_at_nobody();
  void acknowledge();
  void acknowledged(std::uint64_t total);
  void end_here();
  void send_reset();
  void start_watchdog();
  void watch_over();

  SimulatedHost& host_;
  const std::uint64_t id_;
  const std::string remote_host_;
  const std::string remote_address_;
  std::weak_ptr<Socket> peer_;
  State state_ = State::connecting;
  bool dialled_ = false;
  bool writes_ended_ = false;

  transport::StreamObserver* observer_ = nullptr;
  bool watches_readable_ = true;
  bool watches_writable_ = false;
  bool tell_connected_ = false;
  std::optional<Status> tell_failed_;  // by on_failed instead of by a read
  Status end_;                         // what a read says once everything has been read
  bool ended_ = false;

  std::deque<Piece> flight_;
  bool arrival_scheduled_ = false;
  std::size_t unacknowledged_ = 0;  // bytes
  std::uint64_t sent_ = 0;
  Time progress_;                                        // when the last byte was acknowledged
  std::optional<std::pair<std::uint64_t, Time>> timed_;  // a byte, and when it was written
  Duration round_trip_{};
  bool full_ = false;  // pieces had to wait, and more followed
  Time last_arrival_;
  Time link_free_;
  Time clogged_until_;

  Bytes received_;
  std::size_t read_upto_ = 0;
  std::uint64_t arrived_ = 0;
  bool acknowledgement_owed_ = false;
  Time heard_;
};

}  // namespace pyccl::sim
