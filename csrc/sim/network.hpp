// A network in one thread and in virtual time: the transport::Network of as many hosts as one
// likes.
//
// It models connections, not packets. Within one stream bytes keep their order and nothing is lost
// before its end; between streams there is no order at all. A stream delivers its bytes in pieces
// of any size, late, slowly, and takes only as much as its buffers hold. What can go wrong with
// connections goes wrong here: nobody listens, nobody answers, one direction is dead, a reset takes
// an unknown tail of what was on its way, or only one of the two ends learns that it is over.
//
//   Clock clock;
//   SimulatedNetwork network(clock, seed, {});
//   auto stream = network.host("10.0.0.1").dial("10.0.0.2:5000", observer);
//   while (!finished && clock.step()) {}
//
// Addresses are "host:port"; a name is a host of this network and nothing else. A host's turn, in
// which its observers are called, comes as an event of its own, never from inside another call.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/prng.hpp"
#include "base/time.hpp"
#include "sim/clock.hpp"
#include "transport/network.hpp"

namespace pyccl::sim {

struct NetworkOptions {
  Duration latency_min = 50us;
  Duration latency_max = 400us;
  std::uint32_t tail_percent = 2;  // of all pieces come later, up to tail_max
  Duration tail_max = 30ms;
  std::uint64_t bytes_per_second = 20'000'000;  // of each stream and direction
  std::size_t buffer_bytes = 16 * 1024;         // of each stream, direction and end
  std::uint32_t split_percent = 30;  // of all reads and writes take only a part of what they could
  Duration silence_limit = 10s;      // as TCP_USER_TIMEOUT and keepalive
};

// The way from one host to another, for those that are not all alike.
struct Path {
  Duration latency{};
  std::uint64_t bytes_per_second = 0;  // of all streams together; 0: as much as one likes
};

class SimulatedNetwork;
class Socket;

// Which of the two ends of a stream learns at once that it is broken.
enum class Break { both, dialler, acceptor };

class SimulatedHost final : public transport::Network {
 public:
  SimulatedHost(SimulatedNetwork& network, std::string name);
  ~SimulatedHost() override;

  std::unique_ptr<transport::Stream> dial(const std::string& address,
                                          transport::StreamObserver*) override;
  // Port 0: the lowest one that is free, so a restarted process gets the port of the dead one.
  Result<std::unique_ptr<transport::Listener>> listen(const std::string& address,
                                                      transport::AcceptObserver*) override;

  // What a turn does; poll() alone unless something else is set.
  void set_turn(std::function<void()> turn) { turn_ = std::move(turn); }
  void wake();  // asks for a turn, though no stream may be ready
  // Calls the observers of what is ready, in any order; some have to wait for the next turn.
  void poll();

  // A stopped process: its kernel goes on, its observers hear nothing.
  void pause() { paused_ = true; }
  void resume();
  bool paused() const { return paused_; }
  // The end of its process, wherever in its code that happens: the kernel closes what it had open.
  void kill();
  // Loss of power: its streams are gone and nobody is told. Dials find nobody there.
  void power_off();
  void power_on();
  bool up() const { return up_; }
  void set_turn_delay(Duration most) { turn_delay_ = most; }

  const std::string& name() const { return name_; }
  std::size_t open_streams() const;  // that the process has not closed
  std::size_t open_listeners() const { return listeners_.size(); }

 private:
  friend class SimulatedNetwork;
  friend class Socket;
  struct Listening;
  class ListenerHandle;

  void touch(std::uint64_t socket);  // something may be ready
  void run_turn();
  void announce(std::uint16_t port, const std::shared_ptr<Socket>& caller);
  void accept_from(const std::shared_ptr<Listening>& listening);

  SimulatedNetwork& network_;
  std::string name_;
  std::function<void()> turn_;
  bool paused_ = false;
  bool up_ = true;
  bool turn_scheduled_ = false;
  Duration turn_delay_ = 40us;
  std::uint16_t next_port_ = 40'000;  // of dialling ends
  std::map<std::uint16_t, std::shared_ptr<Listening>> listeners_;
  std::set<std::uint64_t> touched_;     // sockets
  std::set<std::uint16_t> callers_at_;  // ports
};

class SimulatedNetwork {
 public:
  SimulatedNetwork(Clock& clock, std::uint64_t seed, const NetworkOptions& options);
  ~SimulatedNetwork();

  SimulatedHost& host(const std::string& name);  // made when it is first asked for
  Clock& clock() { return clock_; }
  Prng& prng() { return prng_; }
  const NetworkOptions& options() const { return options_; }
  void set_options(const NetworkOptions& options) { options_ = options; }

  // In both directions, instead of what the options say.
  void set_path(const std::string& a, const std::string& b, const Path& path);
  // What a host sends, and what it gets, in all.
  void set_host_rate(const std::string& host, std::uint64_t bytes_per_second);

  // One direction is dead: what is sent waits, as it would be sent again and again.
  void block(const std::string& from, const std::string& to);
  void unblock(const std::string& from, const std::string& to);
  void unblock_all();
  bool blocked(const std::string& from, const std::string& to) const;
  // Nothing of this direction arrives before that time.
  void clog(const std::string& from, const std::string& to, Time until);
  // The same for one of the streams between two hosts, chosen by `choice`; false: there is none.
  bool clog_stream(const std::string& a, const std::string& b, std::uint64_t choice, Time until);
  // One bit of what is on its way there is not what it was.
  bool flip_bit(const std::string& a, const std::string& b, std::uint64_t choice);
  bool break_stream(const std::string& a, const std::string& b, std::uint64_t choice, Break how);

  // Bytes handed to streams, over all hosts.
  std::uint64_t bytes_written() const { return bytes_written_; }

 private:
  friend class SimulatedHost;
  friend class Socket;

  // A queue in front of something that passes so many bytes a second.
  struct Gate {
    std::uint64_t bytes_per_second = 0;
    Time free;
    Time pass(Time from, std::uint64_t bytes, bool& waits);
  };

  Duration usual_latency();
  Duration latency(const std::string& from, const std::string& to);
  // When what leaves its sender at that time is before the host that it is for, and when it has got
  // in there, if it is before it now; and whether it has to wait for others.
  Time arrival(const std::string& from, const std::string& to, Time sent, std::uint64_t bytes,
               bool& waits);
  Time entry(const std::string& to, std::uint64_t bytes, bool& waits);
  // How much of what could move does move this time.
  std::size_t part_of(std::size_t bytes);
  // How much of what is written at once travels as a piece of its own, from `done` on.
  std::size_t piece_of(std::size_t written, std::size_t done);
  bool passes(const std::string& from, const std::string& to) const;
  std::shared_ptr<Socket> make_socket(SimulatedHost& host, std::string remote_host,
                                      std::string remote_address);
  std::shared_ptr<Socket> find(std::uint64_t socket) const;
  SimulatedHost* find_host(const std::string& name) const;
  std::vector<std::shared_ptr<Socket>> dialled_between(const std::string& a, const std::string& b);
  // Whatever waits for this direction tries again.
  void resolicit(const std::string& from, const std::string& to);
  void retire(std::uint64_t socket) { sockets_.erase(socket); }

  Clock& clock_;
  Prng prng_;
  NetworkOptions options_;
  std::map<std::string, std::unique_ptr<SimulatedHost>> hosts_;
  std::set<std::pair<std::string, std::string>> blocked_;
  std::map<std::pair<std::string, std::string>, Time> clogged_;
  std::map<std::pair<std::string, std::string>, std::pair<Duration, Gate>> paths_;
  std::map<std::string, std::pair<Gate, Gate>> host_gates_;  // out, in
  std::map<std::uint64_t, std::shared_ptr<Socket>> sockets_;
  std::uint64_t next_socket_ = 1;
  std::uint64_t bytes_written_ = 0;
};

}  // namespace pyccl::sim
