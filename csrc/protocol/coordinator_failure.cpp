// Coordinator: who goes, and how that is found out.
#include <algorithm>
#include <utility>

#include "base/mark.hpp"
#include "protocol/coordinator.hpp"

namespace pyccl::protocol {
namespace {

constexpr Duration probe_pause = 20ms;

}  // namespace

void Coordinator::probe_again(Time now) {
  for (auto& [peer, contact] : contacts_) {
    if (now < contact.probe_due) continue;
    contact.probe_due = never;
    if (is_kept(peer) && !contact.detector.is_connected()) {
      PYCCL_MARK("probed once more");
      probe(peer);
    }
  }
}

void Coordinator::disconnected(Time now, PeerId from) {
  const auto contact = contacts_.find(from);
  if (contact == contacts_.end() || !contact->second.detector.is_connected()) return;
  if (is_joiner(from)) {
    PYCCL_MARK("joiner gone");
    note("peer " + to_string(from) + " went away before it was admitted");
    drop_joiner(from);
  } else {
    contact->second.detector.disconnected(now);
    if (!lost_.contains(from)) probe(from);
  }
  advance(now);
}

void Coordinator::probe(PeerId peer) {
  const MemberInfo* member = state_.view.find(peer);
  Contact& contact = contacts_.at(peer);
  // Without an address nobody can ask; the peer has its grace.
  if (contact.probing || member->addresses.empty()) return;
  contact.probing = true;
  outbox.emplace_back(Probe{peer, member->addresses});
}

void Coordinator::probed(Time now, PeerId peer, ProbeResult result) {
  const auto contact = contacts_.find(peer);
  if (contact == contacts_.end()) return;
  contact->second.probing = false;
  contact->second.detector.probed(result);
  // A process that the system is taking down may be listening still, a moment after its connections
  // broke, or reset the probe. To wait out the grace because of that would cost the others seconds.
  if (result != ProbeResult::refused && !contact->second.detector.is_connected()) {
    contact->second.probe_due = now + probe_pause;
  }
  judge(now);
  advance(now);
}

// Whatever view it was said in: a member that goes takes no further views, so it won't say it
// again.
// Whatever view it names: who leaves installs no further one, so it may lack the present one.
void Coordinator::handle(Time, PeerId from, const Leave&) {
  if (!is_kept(from)) return;
  banished_.insert(from);
  lose(from, "left");
}

void Coordinator::handle(Time now, PeerId from, const Suspect& suspect) {
  if (!is_kept(from) || !is_kept(suspect.peer)) return;
  complaints_.try_emplace({from, suspect.peer}, now);
  probe(suspect.peer);
}

void Coordinator::handle(Time, PeerId from, const Reachable& reachable) {
  complaints_.erase({from, reachable.peer});
}

// A member is given up. Until a view without it stands it may come back (rule R9), unless it asked
// to go or the others can't work with it.
void Coordinator::lose(PeerId peer, std::string why) {
  if (!is_kept(peer)) return;
  note(name_of(peer) + " " + why);
  lost_.emplace(peer, std::move(why));
  const auto contact = contacts_.find(peer);
  if (!banished_.contains(peer) && contact->second.detector.is_connected()) {
    hang_up(peer, lost_.at(peer));
    contacts_.erase(contact);
  }
  if (PYCCL_MUTANT("lost-report-when-two-die") && phase_ == Phase::changing) {
    for (PeerId voter : kept()) {
      if (!reports_.answers().contains(voter)) reports_.answer(voter, Report{});
    }
  }
  reports_.excuse(peer);
  updates_.excuse(peer);
  if (phase_ == Phase::changing) PYCCL_MARK("another member lost during a change");
  if (candidate_) PYCCL_MARK("member lost while a view is prepared");
  abandon_proposal();
}

void Coordinator::take_back(PeerId peer) {
  PYCCL_MARK("given up member taken back");
  note(name_of(peer) + " came back in time");
  lost_.erase(peer);
  reports_.expect(peer);
  updates_.expect(peer);
}

void Coordinator::judge(Time now) {
  std::vector<std::pair<PeerId, std::string>> dead;
  for (const auto& [peer, contact] : contacts_) {
    if (lost_.contains(peer)) continue;
    const bool joiner = is_joiner(peer);
    if (phase_ == Phase::recovering && !joiner && !registered_.contains(peer)) continue;
    if (auto why = contact.detector.death(now, options_.timing)) dead.emplace_back(peer, *why);
  }
  for (auto& [peer, why] : dead) {
    if (is_joiner(peer)) {
      PYCCL_MARK("joiner dead");
      refuse_joiner(peer, {Code::not_admitted, "the coordinator lost this peer: " + why});
    } else {
      lose(peer, "died: " + why);
    }
  }
}

// Pairs of kept members of which at least one says that it can't reach the other.
std::set<Coordinator::Link> Coordinator::broken_links() const {
  std::set<Link> links;
  for (const auto& [link, since] : complaints_) {
    if (is_kept(link.first) && is_kept(link.second))
      links.insert(std::minmax(link.first, link.second));
  }
  return links;
}

// Two that live and can't reach each other block every operation. After the limit the one with more
// such links goes, and if that does not tell them apart, the later rank.
void Coordinator::judge_links(Time now) {
  for (bool again = true; again;) {
    again = false;
    for (const auto& [link, since] : complaints_) {
      if (now < since + options_.timing.cut_off_limit()) continue;
      if (!is_kept(link.first) || !is_kept(link.second)) continue;
      std::map<PeerId, int> count;
      for (const Link& broken : broken_links()) {
        ++count[broken.first];
        ++count[broken.second];
      }
      const auto place = [&](PeerId peer) {
        return state_.view.find(peer) - state_.view.members.data();
      };
      const auto weight = [&](PeerId peer) { return std::pair(count[peer], place(peer)); };
      const bool first = weight(link.first) > weight(link.second);
      const PeerId out = first ? link.first : link.second;
      const PeerId other = first ? link.second : link.first;
      PYCCL_MARK("evicted for want of a connection");
      banished_.insert(out);
      lose(out, "was cut off from " + name_of(other));
      again = true;
      break;
    }
  }
}

}  // namespace pyccl::protocol
