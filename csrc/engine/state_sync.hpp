// One member's part in bringing all members' states to one: a sequence of operations that all
// members call alike. It neither waits nor asks the time; a host runs what it needs next.
//
//   report    all_gather of who has what             -> the election (protocol/shared_state.hpp)
//   table     all_gather of the elected blocks' digests, which one member gives
//   standing  all_gather of who lacks which block     -> a pass (protocol/block_moves.hpp)
//   moving    all_to_all of the pass's blocks, window by window, several under way. If more is
//             lacking, standing again before the last windows of the pass, so that the next one can
//             follow without a gap
//             when all has arrived, standing again, until nobody lacks anything
//
// Everybody's outcome follows from operations that have one outcome for all (contract C1), so all
// members end alike. Whoever dies fails an operation for all survivors, and these begin again with
// the report; blocks that have come stay.
//
// An operation's number is taken by all or by none, or later ones would not meet. So what is posted
// depends on outcomes alone: while moving, the operations stand in a queue that only committed
// standings make longer, and the k + windows_ahead-th is posted when all up to k have been
// committed, whatever has happened to those between.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/block_intake.hpp"
#include "engine/request.hpp"
#include "engine/shared_state.hpp"
#include "protocol/block_moves.hpp"
#include "protocol/shared_state.hpp"

namespace pyccl::engine {

// What ways within a host count as.
inline constexpr std::uint32_t near_mb_per_s = 10'000;

// Out of the way of callers' tags.
inline constexpr std::uint32_t sync_tag = 0xfffffffe;

struct SyncOptions {
  protocol::Strategy strategy = protocol::Strategy::popular;
  // The elected revision must follow on that of the last sync; a state that has not been synced
  // takes any.
  bool expect_next = false;
  std::uint64_t window_bytes = 8 << 20;  // that a member receives by one operation
  // The same where all are on one host, so that what is under way stays in the cache.
  std::uint64_t near_window_bytes = 2 << 20;
  std::size_t windows_ahead = 4;  // operations under way while moving
  // What a member receives in a pass, or a quarter of what it has received if that is more: so soon
  // it shows in the plan what the links carry.
  std::uint64_t pass_bytes = 16 << 20;
  std::uint64_t staged_bytes_max = 128 << 20;
};

struct SyncInfo {
  struct Source {
    PeerId peer;
    std::uint64_t bytes = 0;
  };
  struct Behind {
    PeerId peer;
    std::uint64_t revision = 0;
    bool drifted = false;  // the elected revision, with other bits
  };
  std::uint64_t revision = 0;
  Digest digest;
  std::vector<PeerId> peers;     // in rank order
  std::uint64_t bytes_sent = 0;  // payload of all operations
  std::uint64_t bytes_received = 0;
  std::uint64_t blocks_fetched = 0;
  std::uint64_t bytes_fetched = 0;
  std::vector<Source> sources;  // of what was fetched
  std::vector<Behind> behind;   // who had not the elected state
  std::vector<PeerId> refuted;  // who sent other bits than reported
  bool peers_pending = false;   // as the last operation found it: the same on all members
  std::uint32_t attempts = 1;   // one more for each that a lost member has ended
  double seconds = 0.0;
};

class StateSync {
 public:
  StateSync(SharedState& state, const SyncOptions& options, PeerId self);

  // What the host has to do next. wait: until the operation that was posted first has ended.
  enum class Need { digest, post, wait, over };
  Need need() const;

  // All blocks of the state have been read anew (SharedState::digest_blocks).
  void digested();
  // The members at present, in rank order, and what this one's way to each carries (0: not known;
  // near_mb_per_s: it is within a host).
  struct Place {
    std::vector<PeerId> peers;
    std::vector<std::uint32_t> mb_per_s;
  };
  // Some blocks that this member sends in the pass that begins with the next request, and all to
  // whom it sends; none: no pass begins, or it sends nothing. By them the host may find out whether
  // compression pays; nothing is compressed unless it says so.
  struct Samples {
    struct Block {
      ByteView bytes;
      std::uint8_t width = 1;  // of its numbers
    };
    std::vector<Block> blocks;
    std::set<Rank> receivers;
  };
  Samples samples() const;
  void compress(bool pays) { compresses_ = pays; }
  // To be posted in this order, on sync_tag. Its memory is kept until ended(). Throws
  // std::bad_alloc.
  Request next_request(const Place&);
  void ended(const Status&, const OperationInfo&);

  // When it is over. Not ok: the state holds the old bits, or all of the new ones, or says which
  // tensors are void.
  const Status& status() const { return status_; }
  const SyncInfo& info() const { return info_; }

  // Bytes that have been moved between all members, and that are to be.
  std::uint64_t bytes_moved() const { return bytes_moved_; }
  std::uint64_t bytes_to_move() const { return bytes_to_move_; }

 private:
  enum class Phase { digest, report, schema, table, standing, moving, over };
  enum class Trouble : std::uint8_t { none = 0, table = 1, memory = 2 };

  // An operation under way: its memory, and of a window what it moves.
  struct Posted {
    Bytes input;
    Bytes output;
    std::vector<protocol::Move> window;
    std::byte* received = nullptr;
  };

  Rank rank_of(PeerId) const;
  Rank world() const { return static_cast<Rank>(peers_.size()); }
  bool may_post_move() const;
  void go_to(Phase phase) { phase_ = phase; }
  void finish(Status status);
  void give_up(const Status& status);

  Request gather(Bytes input, std::vector<std::uint64_t> shares);
  Request of_sync(Request request) const;
  Request post_report(const Place&);
  Request post_schema();
  Request post_table();
  Request post_standing(const Place&);
  Request post_move(const Place&);
  Request post_window();

  void take_reports(const Bytes& gathered);
  void compare_schemas();
  void take_schemas(const Bytes& gathered);
  void take_table(const Bytes& table);
  Status take_standings(const Bytes& gathered);
  bool table_refused(const Bytes& gathered);
  Status judge(const std::vector<Trouble>&);
  void take_complaints(const std::vector<std::vector<bool>>& complaints);
  bool look_again();
  void begin_moving();
  bool all_near() const;
  std::uint64_t plan_pass();
  void move_ended(const Posted&, const Status&);
  void take_window(const Posted&);
  void note_behind();
  void conclude();

  std::size_t standing_bytes() const;

  SharedState& state_;
  const SyncOptions options_;
  const PeerId self_;
  BlockIntake intake_;
  Phase phase_ = Phase::digest;
  Phase after_digest_ = Phase::report;
  std::deque<Posted> posted_;
  Status status_;
  SyncInfo info_;

  // Of this attempt.
  std::vector<PeerId> peers_;  // in rank order
  Rank rank_ = -1;
  std::vector<protocol::StateReport> reports_;
  protocol::Election election_;
  Trouble trouble_ = Trouble::none;
  std::set<PeerId> complaints_;  // of this member, not told yet
  std::set<PeerId> distrusted_;  // by all; for as long as this sync lasts
  std::set<PeerId> suspects_;    // of these, who has not looked again yet what it has

  // While moving.
  std::vector<protocol::Standing> standings_;
  std::vector<std::vector<bool>> assigned_;  // by rank and block: has been under way
  std::vector<std::uint64_t> assigned_bytes_;
  // Windows to be posted; one of no moves stands for asking who lacks what.
  std::deque<std::vector<protocol::Move>> queue_;
  std::size_t posts_ = 0;
  std::size_t arrived_ = 0;  // of these, from the first one on
  Status broken_;            // what became of the first one that was not committed
  std::uint64_t window_number_ = 0;

  std::vector<protocol::Move> moves_;  // of the present pass
  bool pass_begins_ = false;
  bool compresses_ = false;

  std::map<PeerId, std::uint64_t> fetched_;  // bytes by source
  std::map<PeerId, SyncInfo::Behind> behind_;
  std::uint64_t bytes_moved_ = 0;
  std::uint64_t bytes_to_move_ = 0;
};

}  // namespace pyccl::engine
