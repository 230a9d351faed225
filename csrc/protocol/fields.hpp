// The field lists: for each struct that travels, its members in the order of the wire, with their
// bounds. This is the only description of the format; codec.cpp reads, writes, prints and invents
// messages by walking it.
#pragma once

#include <tuple>

#include "protocol/limits.hpp"
#include "protocol/messages.hpp"

namespace pyccl::protocol {

template <class Object, class Value>
struct Field {
  const char* name;
  Value Object::* member;
  std::size_t limit = 0;       // of a string in bytes (longer ones are cut), of a list in items
  std::size_t item_limit = 0;  // of the strings in a list
};

template <class Object, class Value>
Field(const char*, Value Object::*) -> Field<Object, Value>;
template <class Object, class Value>
Field(const char*, Value Object::*, std::size_t) -> Field<Object, Value>;
template <class Object, class Value>
Field(const char*, Value Object::*, std::size_t, std::size_t) -> Field<Object, Value>;

// The last value of each enumeration that travels; what lies beyond is refused.
constexpr auto last_of(Role) { return Role::mirror; }
constexpr auto last_of(Outcome) { return Outcome::withdrawn; }
constexpr auto last_of(ViewKind) { return ViewKind::decision; }
constexpr auto last_of(Collective) { return Collective::exchange; }
constexpr auto last_of(OnLoss) { return OnLoss::raise; }
constexpr auto last_of(OperationState) { return OperationState::committed; }

// ---- what messages are made of
constexpr auto fields_of(const PeerId*) { return std::tuple{Field{"value", &PeerId::value}}; }
constexpr auto fields_of(const RunId*) { return std::tuple{Field{"value", &RunId::value}}; }
constexpr auto fields_of(const GroupId*) { return std::tuple{Field{"value", &GroupId::value}}; }

constexpr auto fields_of(const Epoch*) {
  return std::tuple{Field{"incarnation", &Epoch::incarnation}, Field{"counter", &Epoch::counter}};
}

constexpr auto fields_of(const OpKey*) {
  return std::tuple{Field{"group", &OpKey::group}, Field{"tag", &OpKey::tag},
                    Field{"seq", &OpKey::seq}};
}

constexpr auto fields_of(const OpId*) {
  return std::tuple{Field{"epoch", &OpId::epoch}, Field{"key", &OpId::key}};
}

constexpr auto fields_of(const MemberInfo*) {
  return std::tuple{Field{"peer", &MemberInfo::peer},
                    Field{"group", &MemberInfo::group, name_bytes_max},
                    Field{"role", &MemberInfo::role},
                    Field{"addresses", &MemberInfo::addresses, addresses_max, address_bytes_max}};
}

constexpr auto fields_of(const Decision*) {
  return std::tuple{Field{"op", &Decision::op}, Field{"outcome", &Decision::outcome},
                    Field{"hint", &Decision::hint},
                    Field{"status", &Decision::status, operation_reason_bytes_max}};
}

constexpr auto fields_of(const NextSequence*) {
  return std::tuple{Field{"group", &NextSequence::group}, Field{"tag", &NextSequence::tag},
                    Field{"seq", &NextSequence::seq}};
}

constexpr auto fields_of(const Subgroup*) {
  return std::tuple{Field{"id", &Subgroup::id}, Field{"places", &Subgroup::places, members_max}};
}

constexpr auto fields_of(const GroupLinks*) {
  return std::tuple{Field{"group", &GroupLinks::group},
                    Field{"latency_us", &GroupLinks::latency_us},
                    Field{"ring_latency_us", &GroupLinks::ring_latency_us},
                    Field{"mesh_mb_per_s", &GroupLinks::mesh_mb_per_s},
                    Field{"ring_mb_per_s", &GroupLinks::ring_mb_per_s},
                    Field{"ring", &GroupLinks::ring, members_max}};
}

constexpr auto fields_of(const View*) {
  return std::tuple{Field{"run", &View::run},
                    Field{"epoch", &View::epoch},
                    Field{"parent", &View::parent},
                    Field{"kind", &View::kind},
                    Field{"members", &View::members, members_max},
                    Field{"decisions", &View::decisions, decisions_max},
                    Field{"next_sequences", &View::next_sequences, tags_max},
                    Field{"subgroups", &View::subgroups, decisions_max},
                    Field{"links", &View::links, members_max},
                    Field{"reason", &View::reason, reason_bytes_max}};
}

constexpr auto fields_of(const Part*) {
  return std::tuple{Field{"dtype", &Part::dtype}, Field{"count", &Part::count}};
}

constexpr auto fields_of(const Descriptor*) {
  return std::tuple{Field{"kind", &Descriptor::kind},
                    Field{"parts", &Descriptor::parts, parts_max},
                    Field{"reduce_op", &Descriptor::reduce_op},
                    Field{"algorithm", &Descriptor::algorithm},
                    Field{"codec", &Descriptor::codec},
                    Field{"block", &Descriptor::block},
                    Field{"scale_dtype", &Descriptor::scale_dtype},
                    Field{"partial_dtype", &Descriptor::partial_dtype},
                    Field{"on_loss", &Descriptor::on_loss},
                    Field{"root", &Descriptor::root},
                    Field{"root_peer", &Descriptor::root_peer},
                    Field{"segment_bytes", &Descriptor::segment_bytes},
                    Field{"layout", &Descriptor::layout},
                    Field{"shares", &Descriptor::shares, members_max},
                    Field{"uneven", &Descriptor::uneven}};
}

constexpr auto fields_of(const OperationReport*) {
  return std::tuple{Field{"op", &OperationReport::op},
                    Field{"state", &OperationReport::state},
                    Field{"hint", &OperationReport::hint},
                    Field{"on_loss", &OperationReport::on_loss},
                    Field{"root", &OperationReport::root},
                    Field{"status", &OperationReport::status, operation_reason_bytes_max}};
}

// ---- the messages
constexpr auto fields_of(const Hello*) {
  return std::tuple{Field{"version", &Hello::version}, Field{"run", &Hello::run},
                    Field{"member", &Hello::member}};
}

constexpr auto fields_of(const Register*) {
  return std::tuple{Field{"version", &Register::version}, Field{"peer", &Register::peer},
                    Field{"view", &Register::view}};
}

constexpr auto fields_of(const Report*) {
  return std::tuple{Field{"epoch", &Report::epoch},
                    Field{"operations", &Report::operations, reported_max},
                    Field{"next_sequences", &Report::next_sequences, tags_max},
                    Field{"behind_failures", &Report::behind_failures, tags_max},
                    Field{"subgroups", &Report::subgroups, subgroups_max}};
}

constexpr auto fields_of(const Prepared*) {
  return std::tuple{Field{"epoch", &Prepared::epoch},
                    Field{"unreachable", &Prepared::unreachable, members_max}};
}

constexpr auto fields_of(const MeasuredLink*) {
  return std::tuple{Field{"peer", &MeasuredLink::peer},
                    Field{"latency_us", &MeasuredLink::latency_us},
                    Field{"mb_per_s", &MeasuredLink::mb_per_s}};
}

constexpr auto fields_of(const Measured*) {
  return std::tuple{Field{"links", &Measured::links, members_max}};
}

constexpr auto fields_of(const Update*) { return std::tuple{Field{"epoch", &Update::epoch}}; }
constexpr auto fields_of(const UpdateWithdrawn*) {
  return std::tuple{Field{"epoch", &UpdateWithdrawn::epoch}};
}
constexpr auto fields_of(const Leave*) { return std::tuple{Field{"epoch", &Leave::epoch}}; }

constexpr auto fields_of(const Suspect*) {
  return std::tuple{Field{"epoch", &Suspect::epoch}, Field{"peer", &Suspect::peer}};
}

constexpr auto fields_of(const Reachable*) {
  return std::tuple{Field{"epoch", &Reachable::epoch}, Field{"peer", &Reachable::peer}};
}

constexpr auto fields_of(const Refuse*) {
  return std::tuple{Field{"epoch", &Refuse::epoch}, Field{"op", &Refuse::op},
                    Field{"status", &Refuse::status, operation_reason_bytes_max}};
}

constexpr auto fields_of(const Heartbeat*) { return std::tuple<>{}; }

constexpr auto fields_of(const Welcome*) {
  return std::tuple{Field{"run", &Welcome::run}, Field{"incarnation", &Welcome::incarnation},
                    Field{"heartbeat_limit", &Welcome::heartbeat_limit}};
}

constexpr auto fields_of(const NotAdmitted*) {
  return std::tuple{Field{"status", &NotAdmitted::status, reason_bytes_max}};
}

constexpr auto fields_of(const Freeze*) { return std::tuple{Field{"epoch", &Freeze::epoch}}; }
constexpr auto fields_of(const Prepare*) { return std::tuple{Field{"view", &Prepare::view}}; }

constexpr auto fields_of(const Evicted*) {
  return std::tuple{Field{"epoch", &Evicted::epoch},
                    Field{"status", &Evicted::status, reason_bytes_max}};
}

constexpr auto fields_of(const Pending*) { return std::tuple{Field{"count", &Pending::count}}; }

constexpr auto fields_of(const Awaited*) {
  return std::tuple{Field{"epoch", &Awaited::epoch},
                    Field{"missing", &Awaited::missing, awaited_max}};
}

constexpr auto fields_of(const Posted*) {
  return std::tuple{Field{"op", &Posted::op}, Field{"descriptor", &Posted::descriptor},
                    Field{"weight", &Posted::weight}, Field{"gives", &Posted::gives},
                    Field{"takes", &Posted::takes}};
}

constexpr auto fields_of(const Done*) {
  return std::tuple{Field{"op", &Done::op}, Field{"hint", &Done::hint}};
}

constexpr auto fields_of(const Link*) {
  return std::tuple{Field{"version", &Link::version}, Field{"run", &Link::run},
                    Field{"from", &Link::from}, Field{"to", &Link::to},
                    Field{"memory", &Link::memory, memory_text_bytes_max}};
}

constexpr auto fields_of(const LinkAccepted*) {
  return std::tuple{Field{"memory", &LinkAccepted::memory, memory_text_bytes_max}};
}

constexpr auto fields_of(const LinkRefused*) {
  return std::tuple{Field{"status", &LinkRefused::status, reason_bytes_max}};
}

}  // namespace pyccl::protocol
