// See waiting_calls.hpp.
#include "engine/waiting_calls.hpp"

#include <algorithm>
#include <set>

#include "engine/call.hpp"

namespace pyccl::engine {

using protocol::Numbering;

bool WaitingCalls::want(Numbering numbers) const {
  return std::ranges::any_of(calls_, [&](const Entry& entry) {
    return std::ranges::find(entry.choices, numbers, &Choice::numbers) != entry.choices.end();
  });
}

void WaitingCalls::add(WaitingCall call, const protocol::View& view) {
  insert(entry_of(std::move(call), view));
}

bool WaitingCalls::add_again(WaitingCall call, const Status& failure, const protocol::View& view) {
  Request& request = call.request;
  if (request.sources.empty() || failure.code() != Code::peer_lost ||
      failure.peer() != request.members.front()) {
    return false;
  }
  request.members.clear();
  request.source = -1;
  Entry entry = entry_of(std::move(call), view);
  if (entry.choices.empty()) return false;
  insert(std::move(entry));
  return true;
}

WaitingCalls::Entry WaitingCalls::entry_of(WaitingCall call, const protocol::View& view) const {
  Entry entry{std::move(call), {}, {}};
  const Request& request = entry.call.request;
  entry.lost = {Code::invalid_argument, "recv from any member: there is no other"};
  if (entry.names_sender()) {
    entry.choices.push_back({{group_of(request, group_), request.tag}, {}, -1});
  }
  for (std::size_t rank = 0; rank < request.sources.size(); ++rank) {
    const PeerId sender = request.sources[rank];
    if (sender == self_) continue;
    const GroupId pair = subgroup_id(group_, pair_of(sender, self_), request.name);
    entry.choices.push_back({{pair, request.tag}, sender, static_cast<Rank>(rank)});
  }
  drop_lost(entry, view);
  return entry;
}

void WaitingCalls::insert(Entry entry) {
  const auto ticket = [](const Entry& each) { return each.call.ticket; };
  const auto place = std::ranges::upper_bound(calls_, entry.call.ticket, {}, ticket);
  calls_.insert(place, std::move(entry));
  changed_ = true;
}

bool WaitingCalls::remove(Ticket ticket) {
  const auto removed =
      std::erase_if(calls_, [=](const Entry& entry) { return entry.call.ticket == ticket; });
  changed_ = changed_ || removed > 0;
  return removed > 0;
}

std::vector<Ticket> WaitingCalls::remove_all() {
  std::vector<Ticket> tickets;
  for (const Entry& entry : std::exchange(calls_, {})) tickets.push_back(entry.call.ticket);
  return tickets;
}

void WaitingCalls::install(const protocol::View& view) {
  for (Entry& entry : calls_) drop_lost(entry, view);
  changed_ = true;
}

void WaitingCalls::drop_lost(Entry& entry, const protocol::View& view) const {
  if (entry.names_sender()) return;  // if it was that one, this shows when the call is posted
  std::erase_if(entry.choices, [&](const Choice& choice) {
    if (view.find(choice.sender) != nullptr) return false;
    entry.lost = {Code::peer_lost,
                  "recv from any member: none of those is left that could have sent with tag " +
                      std::to_string(entry.call.request.tag) + "; the last one was rank " +
                      std::to_string(choice.rank) + ", peer " + to_string(choice.sender),
                  choice.sender};
    return true;
  });
}

std::optional<std::pair<WaitingCall, Status>> WaitingCalls::next(const protocol::Member& member,
                                                                 Time now,
                                                                 const Undecided& undecided) {
  if (calls_.empty() || (!changed_ && heard_ == member.heard())) return std::nullopt;
  std::set<Numbering> wanted;  // by calls that were made before
  for (std::size_t i = 0; i < calls_.size(); ++i) {
    const Entry& entry = calls_[i];
    const Choice* chosen = nullptr;
    std::uint64_t first = 0;
    for (const Choice& choice : entry.choices) {
      if (wanted.contains(choice.numbers) || undecided(choice.numbers)) continue;
      if (entry.names_sender()) {
        chosen = &choice;
        continue;
      }
      // One whose time is up would only take what was sent down with it.
      const auto heard = member.called_by(choice.sender, choice.numbers);
      if (!heard || (chosen != nullptr && first <= *heard) || entry.call.request.deadline <= now) {
        continue;
      }
      chosen = &choice;
      first = *heard;
    }
    if (chosen != nullptr || entry.choices.empty()) return take(i, chosen);
    for (const Choice& choice : entry.choices) wanted.insert(choice.numbers);
  }
  changed_ = false;
  heard_ = member.heard();
  return std::nullopt;
}

std::pair<WaitingCall, Status> WaitingCalls::take(std::size_t index, const Choice* choice) {
  Entry& entry = calls_[index];
  std::pair<WaitingCall, Status> taken{std::move(entry.call), {}};
  Request& request = taken.first.request;
  if (choice == nullptr) {
    taken.second = std::move(entry.lost);
  } else if (choice->sender) {
    request.members = pair_of(choice->sender, self_);
    request.source = choice->rank;
  }
  calls_.erase(calls_.begin() + static_cast<std::ptrdiff_t>(index));
  return taken;
}

std::optional<std::pair<Ticket, Status>> WaitingCalls::expire(Time now) {
  const auto late = std::ranges::find_if(
      calls_, [&](const Entry& entry) { return entry.call.request.deadline <= now; });
  if (late == calls_.end()) return std::nullopt;
  const std::string tag = "tag " + std::to_string(late->call.request.tag);
  const bool behind = std::any_of(calls_.begin(), late, [&](const Entry& earlier) {
    return !earlier.names_sender() && !late->choices.empty() &&
           std::ranges::find(earlier.choices, late->choices.front().numbers, &Choice::numbers) !=
               earlier.choices.end();
  });
  std::string why =
      "an operation of this tag was cancelled, and the coordinator has not said in time what "
      "became of it";
  if (!late->names_sender()) {
    why = "recv from any member: no member sent with " + tag + " in time, of " +
          std::to_string(late->choices.size()) + " that could have";
  } else if (behind) {
    why = "this call stood behind a recv from any member with " + tag +
          ", and no member sent in time";
  }
  const Ticket ticket = late->call.ticket;
  calls_.erase(late);
  changed_ = true;
  return std::pair{ticket, Status(Code::timeout, std::move(why))};
}

std::optional<Time> WaitingCalls::next_deadline() const {
  std::optional<Time> next;
  for (const Entry& entry : calls_) next = earlier(next, entry.call.request.deadline);
  return next;
}

}  // namespace pyccl::engine
