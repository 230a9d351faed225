// The commands of scenarios. A line is words; the first one chooses the command:
//
//   groups N                            before the first peer: how many groups there are
//   peers N                             p1 to pN start and come together in one view
//   start P... [group NAME] | start coordinator         a new life
//   file forget | file save | file restore              the coordinator's state file
//   repeat N COMMAND
//   kill P | lose P | pause P | resume P      of the process, or with its machine; also coordinator
//   cut P Q                             all connections between the two break
//   move P                              its host gets another address, and only P notices that
//   part P Q | join P Q                 nothing gets through between them any more, or does again
//   post TAG P... [deadline S] [count N] [raise] [of Q,R] [root Q] [gives A,B takes C,D]
//        [refused CODE]                 of: a subgroup; gives, takes: to and from each rank
//   cancel OP P | cancel update P...    OP is TAG#SEQ, or TAG#SEQ/Q,R of a subgroup
//   update P... [deadline S] | leave P... [deadline S]
//   hold KIND [from P] [to P]           messages of this kind (or data, receipt) are held back
//   release [KIND...]                   these kinds, or all, are held back no more
//   run S                               so many seconds pass
//   until CONDITION | expect CONDITION  waits for it at most a minute, or not at all
#include "sim/protocol/script.hpp"

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <utility>

namespace pyccl::sim {
namespace {

constexpr Duration patience = 60s;
constexpr Duration step = 1ms;

// Takes "name value" out of the words; the fallback if it is not there.
std::string taken(Words& words, const std::string& name, const std::string& fallback) {
  const auto found = std::ranges::find(words, name);
  if (found == words.end() || std::next(found) == words.end()) return fallback;
  const std::string value = *std::next(found);
  words.erase(found, found + 2);
  return value;
}

std::vector<std::uint64_t> numbers_named(const std::string& text) {
  std::vector<std::uint64_t> numbers;
  std::istringstream list(text);
  for (std::string one; std::getline(list, one, ',');) numbers.push_back(std::stoull(one));
  return numbers;
}

std::string kind_of(const Payload& payload) {
  if (std::holds_alternative<Contribution>(payload)) return "data";
  if (std::holds_alternative<Receipt>(payload)) return "receipt";
  std::string name = to_string(std::get<protocol::Message>(payload));
  name.resize(name.find('{'));
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name;
}

}  // namespace

MachineId machine_named(const std::string& name) {
  if (name == "coordinator") return 0;
  if (name.size() < 2 || name[0] != 'p') return -1;
  return std::atoi(name.c_str() + 1);
}

Duration seconds_named(const std::string& text) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(std::atof(text.c_str()) * 1000));
}

void ScriptCaller::committed(OpKey op, bool hint) {
  End& end = ends[op];
  end = {"committed", "", hint, {}};
  for (PeerId peer : peer_.exchange(op)->members) {
    end.contributors.push_back(world_.short_name(peer));
  }
}

void ScriptCaller::withdrawn(OpKey op) { ends[op] = {"withdrawn", "", false, {}}; }

void ScriptCaller::failed(OpKey op, const Status& status) {
  ends[op] = {name_of(status.code()), status.reason(), false, {}};
}

void ScriptCaller::update_finished(const Status& status) {
  update = name_of(status.code());
  update_reason = status.reason();
}

Script::Script(Trace::Text text) : world_(0, calm_swarm(), text) {
  world_.coordinator.start();
  world_.network.holds = [this](MachineId from, MachineId to, const Payload& payload) {
    return held(from, to, payload);
  };
}

bool Script::held(MachineId from, MachineId to, const Payload& payload) const {
  return std::ranges::any_of(holds_, [&](const Hold& hold) {
    return (hold.from < 0 || hold.from == from) && (hold.to < 0 || hold.to == to) &&
           hold.kind == kind_of(payload);
  });
}

std::string Script::perform(const Words& words) {
  using Command = std::string (Script::*)(const Words&);
  static const std::map<std::string, Command> commands = {
      {"groups", &Script::start}, {"peers", &Script::start},   {"start", &Script::start},
      {"kill", &Script::stop},    {"lose", &Script::stop},     {"pause", &Script::stop},
      {"resume", &Script::stop},  {"cut", &Script::network},   {"part", &Script::network},
      {"file", &Script::file},    {"repeat", &Script::repeat}, {"join", &Script::network},
      {"post", &Script::post},    {"cancel", &Script::call},   {"update", &Script::call},
      {"leave", &Script::call},   {"hold", &Script::hold},     {"release", &Script::hold},
      {"move", &Script::move},    {"run", &Script::time},      {"until", &Script::time},
      {"expect", &Script::time}};
  const auto found = commands.find(words[0]);
  if (found == commands.end()) return "unknown command " + words[0];
  problem_.clear();
  std::string text = (this->*found->second)(words);
  if (const auto& failure = world_.failure()) return failure->invariant + ": " + failure->text;
  return text.empty() ? problem_ : text;
}

std::shared_ptr<PeerNode> Script::spawn(MachineId machine, const std::string& group) {
  auto peer = world_.spawn(machine, group.empty() ? world_.group_of(machine) : group);
  peer->caller = std::make_unique<ScriptCaller>(world_, *peer);
  named_[peer->name()] = peer;
  return peer;
}

std::string Script::file(const Words& words) {
  if (words.back() == "save") saved_ = world_.coordinator.file();
  if (words.back() == "forget") world_.coordinator.replace_file(std::nullopt);
  if (words.back() == "restore") world_.coordinator.replace_file(saved_);
  return "";
}

std::string Script::repeat(const Words& words) {
  std::string text;
  for (int i = std::atoi(words.at(1).c_str()); i > 0 && text.empty(); --i) {
    text = perform(Words(words.begin() + 2, words.end()));
  }
  return text;
}

std::string Script::start(const Words& given) {
  Words words = given;
  const std::string group = taken(words, "group", "");
  if (words.size() < 2) return "start whom?";
  if (words[0] == "groups") {
    world_.groups = std::atoi(words[1].c_str());
    return "";
  }
  if (words[0] == "peers") return gather(std::atoi(words[1].c_str()));
  for (std::size_t i = 1; i < words.size(); ++i) {
    const MachineId machine = machine_named(words[i]);
    if (machine < 0 || machine > world_.swarm.machines) return "no machine " + words[i];
    if (machine == 0) {
      world_.coordinator.start();
    } else {
      spawn(machine, group);
    }
  }
  return "";
}

// The first is admitted at once, and lets the others in.
std::string Script::gather(int count) {
  const auto first = spawn(1, "");
  std::string text = time({"until", "members", "p1", "at", "p1"});
  Words condition = {"until", "members", "p1"};
  for (int i = 2; i <= count; ++i) {
    spawn(i, "");
    condition.push_back("p" + std::to_string(i));
    if (text.empty()) text = time({"until", "joiners", std::to_string(i - 1)});
  }
  if (count == 1 || !text.empty()) return text;
  first->update(patience);
  condition.push_back("at");
  for (int i = 1; i <= count; ++i) condition.push_back("p" + std::to_string(i));
  return time(condition);
}

std::string Script::stop(const Words& words) {
  for (std::size_t i = 1; i < words.size(); ++i) {
    const MachineId machine = machine_named(words[i]);
    if (machine == 0) {
      if (words[0] == "kill" || words[0] == "lose") world_.coordinator.crash(words[0] == "lose");
      if (words[0] == "pause") world_.coordinator.pause();
      if (words[0] == "resume") world_.coordinator.resume();
      continue;
    }
    const auto peer = world_.peer_at(machine);
    if (!peer) return "no peer " + words[i];
    if (words[0] == "kill" || words[0] == "lose") peer->crash(words[0] == "lose");
    if (words[0] == "pause") peer->pause();
    if (words[0] == "resume") peer->resume();
  }
  return "";
}

std::string Script::network(const Words& words) {
  if (words.size() != 3) return words[0] + " wants two names";
  const MachineId left = machine_named(words[1]);
  const MachineId right = machine_named(words[2]);
  if (left < 0 || right < 0) return "no such machines";
  if (words[0] == "part") {
    world_.network.block(left, right);
    world_.network.block(right, left);
  } else if (words[0] == "join") {
    world_.network.unblock(left, right);
    world_.network.unblock(right, left);
  } else {
    for (const auto& connection : world_.network.connections()) {
      const bool there = connection->machine(0) == left && connection->machine(1) == right;
      const bool back = connection->machine(0) == right && connection->machine(1) == left;
      if (there || back) connection->reset(step, step);
    }
  }
  return "";
}

std::string Script::move(const Words& words) {
  const auto peer = words.size() == 2 ? world_.peer_at(machine_named(words[1])) : nullptr;
  if (!peer || !peer->coordinator_line()) return "move whom?";
  ++world_.routes[peer->machine()];
  peer->coordinator_line()->reset(step, patience);
  return "";
}

std::string Script::call(const Words& given) {
  Words words = given;
  const Duration deadline = seconds_named(taken(words, "deadline", "30"));
  const std::size_t first = words[0] == "cancel" ? 2 : 1;
  for (std::size_t i = first; i < words.size(); ++i) {
    const auto peer = world_.peer_at(machine_named(words[i]));
    if (!peer) return "no peer " + words[i];
    if (words[0] == "update") {
      static_cast<ScriptCaller&>(*peer->caller).update.clear();
      if (!peer->update(deadline)) return "update() was refused";
    }
    if (words[0] == "leave") peer->leave(deadline);
    if (words[0] == "cancel" && words[1] == "update") {
      peer->cancel_update();
    } else if (words[0] == "cancel") {
      const auto op = operation_named(words[1], *peer);
      if (!op) return "cancel wants TAG#SEQ";
      peer->cancel(*op);
    }
  }
  return "";
}

std::string Script::post(const Words& given) {
  Words words = given;
  const Duration deadline = seconds_named(taken(words, "deadline", "30"));
  protocol::Call call;
  const int count = std::atoi(taken(words, "count", "1000").c_str());
  call.descriptor.parts = {{PYCCL_F32, static_cast<std::uint64_t>(count)}};
  if (std::erase(words, "raise") > 0) call.descriptor.on_loss = protocol::OnLoss::raise;
  call.members = peers_named(taken(words, "of", ""));
  call.gives = numbers_named(taken(words, "gives", ""));
  call.takes = numbers_named(taken(words, "takes", ""));
  call.descriptor.uneven = !call.gives.empty();
  const std::string root = taken(words, "root", "");
  const std::string refused = taken(words, "refused", "");
  call.tag = static_cast<std::uint32_t>(std::atoi(words[1].c_str()));
  for (std::size_t i = 2; i < words.size(); ++i) {
    const auto peer = world_.peer_at(machine_named(words[i]));
    if (!peer) return "no peer " + words[i];
    const GroupId group = group_id(peer->group());
    if (!call.members.empty()) call.group = subgroup_id(group, call.members, "");
    if (!root.empty()) {
      call.descriptor.root_peer = peers_named(root).front();
      call.descriptor.root = 0;  // ranks do not matter to any script
    }
    const auto op = peer->post(call, deadline);
    const std::string how = op.ok() ? "" : name_of(op.status().code());
    if (how != refused) return words[i] + (op.ok() ? " may post" : ": " + op.status().reason());
  }
  return "";
}

// "p1,p2", also of those that are no more.
std::vector<PeerId> Script::peers_named(const std::string& text) const {
  std::vector<PeerId> peers;
  std::istringstream list(text);
  for (std::string name; std::getline(list, name, ',');) {
    if (const auto found = named_.find(name); found != named_.end()) {
      peers.push_back(found->second->id());
    }
  }
  return peers;
}

std::optional<OpKey> Script::operation_named(const std::string& text, const PeerNode& peer) const {
  const auto hash = text.find('#');
  if (hash == std::string::npos) return std::nullopt;
  GroupId group = group_id(peer.group());
  if (const auto slash = text.find('/'); slash != std::string::npos) {
    group = subgroup_id(group, peers_named(text.substr(slash + 1)), "");
  }
  return OpKey{group, static_cast<std::uint32_t>(std::atoi(text.c_str())),
               static_cast<std::uint32_t>(std::atoi(text.c_str() + hash + 1))};
}

std::string Script::hold(const Words& given) {
  Words words = given;
  if (words[0] == "release") {
    std::erase_if(holds_, [&](const Hold& one) {
      return words.size() == 1 || std::ranges::find(words, one.kind) != words.end();
    });
    world_.network.release();
    return "";
  }
  if (words.size() < 2) return "hold what?";
  Hold one{words[1], machine_named(taken(words, "from", "")),
           machine_named(taken(words, "to", ""))};
  holds_.push_back(std::move(one));
  return "";
}

std::string Script::time(const Words& words) {
  if (words[0] == "run") {
    world_.run_until(world_.clock.now() + seconds_named(words.at(1)));
    return "";
  }
  const Words condition(words.begin() + 1, words.end());
  if (condition.empty()) return words[0] + " what?";
  const Time end = world_.clock.now() + (words[0] == "until" ? patience : Duration(0));
  while (!holds(condition)) {
    if (!problem_.empty() || !world_.running()) return "";
    if (world_.clock.now() >= end) return "does not hold";
    world_.run_until(world_.clock.now() + step);
  }
  return "";
}

}  // namespace pyccl::sim
