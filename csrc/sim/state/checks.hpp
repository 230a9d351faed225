// What must hold in the state world: while a sync runs, of each member after each of its steps; and
// when it is over, of all survivors.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "sim/state/member.hpp"
#include "sim/state/reference.hpp"

namespace pyccl::sim {

class StateChecks {
 public:
  explicit StateChecks(StateWorld& world) : world_(world) {}

  void round_begins();
  void digested(const StateMember&);
  void lied(const StateMember&, std::size_t block);
  void posts(const StateMember&, const engine::Request&);
  void ended(const StateMember&, const Status&, std::uint64_t bytes);
  void acted(const StateMember&);
  // Nobody does anything any more.
  void round_over(bool somebody_died);

 private:
  // What a member had, and may still have.
  struct Old {
    StateSeen seen;
    bool lied = false;
    std::uint64_t received = 0;  // bytes of blocks
  };

  StateSeen look(const StateMember&) const;
  const StateSeen* candidate_like(const StateMember&) const;
  bool all_schemas_equal() const;
  std::vector<StateMember*> survivors() const;

  void check_ends_alike(const std::vector<StateMember*>&);
  void check_winner(bool somebody_died);
  void check_success(const StateMember&);
  void check_bits(const StateMember&);
  void check_amounts(const StateMember&);
  void check_refuted(const StateMember&);
  void check_failure(const StateMember&);
  void check_refusal(const StateMember&);
  void check_staging(const StateMember&);

  StateWorld& world_;
  std::map<PeerId, Old> old_;
  std::vector<StateSeen> candidates_;  // that may be sent
  std::vector<StateSeen> first_;       // in rank order, when all have looked for the first time
  bool quiet_ = true;                  // nobody has lied
};

}  // namespace pyccl::sim
