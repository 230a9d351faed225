// The codec, on messages that nobody chose: what is encoded comes back, and no bytes do any harm.
#include "protocol/codec.hpp"

#include <doctest/doctest.h>

#include <set>
#include <type_traits>

#include "protocol/fields.hpp"

using namespace pyccl;
using namespace pyccl::protocol;

namespace {

Bytes bytes_of(std::initializer_list<int> values) {
  Bytes bytes;
  for (int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

template <class T>
constexpr bool is_text = std::is_same_v<T, std::string> || std::is_same_v<T, Status>;

// A text without a limit arrives as "", and nobody would notice.
template <class T>
void check_limits() {
  if constexpr (requires { fields_of(static_cast<const T*>(nullptr)); }) {
    const auto check = [](const auto& field) {
      using Value = std::remove_reference_t<decltype(std::declval<T>().*field.member)>;
      INFO(std::string(field.name));
      if constexpr (is_text<Value>) {
        CHECK(field.limit > 0);
      } else if constexpr (requires { typename Value::value_type; }) {
        CHECK(field.limit > 0);
        CHECK((!is_text<typename Value::value_type> || field.item_limit > 0));
        check_limits<typename Value::value_type>();
      } else {
        check_limits<Value>();
      }
    };
    std::apply([&](const auto&... field) { (check(field), ...); },
               fields_of(static_cast<const T*>(nullptr)));
  }
}

template <class... Kinds>
void check_limits_of(const std::variant<Kinds...>*) {
  (check_limits<Kinds>(), ...);
}

}  // namespace

TEST_CASE("every text and every list has its limit") {
  check_limits_of(static_cast<const Message*>(nullptr));
}

TEST_CASE("random messages of every kind survive a round trip") {
  Prng prng(1);
  std::set<std::size_t> kinds;
  for (int i = 0; i < 5000; ++i) {
    const Message message = random_message(prng);
    kinds.insert(message.index());
    const auto decoded = decode(encode(message));
    REQUIRE(decoded.ok());
    CHECK(decoded.value() == message);
    CHECK(!to_string(message).empty());
  }
  CHECK(kinds.size() == std::variant_size_v<Message>);
}

TEST_CASE("every truncation is refused, and so is what follows the end") {
  Prng prng(2);
  for (int i = 0; i < 200; ++i) {
    Bytes bytes = encode(random_message(prng));
    for (std::size_t length = 0; length < bytes.size(); ++length) {
      CHECK(!decode(ByteView(bytes).first(length)).ok());
    }
    bytes.push_back(std::byte{0});
    CHECK(decode(bytes).status().code() == Code::protocol_violation);
  }
}

TEST_CASE("flipped bytes give a message within its limits or a status") {
  Prng prng(3);
  for (int i = 0; i < 3000; ++i) {
    Bytes bytes = encode(random_message(prng));
    for (std::uint64_t flips = prng.between(1, 4); flips > 0; --flips) {
      bytes[prng.below(bytes.size())] ^= static_cast<std::byte>(prng.between(1, 255));
    }
    const auto decoded = decode(bytes);
    if (decoded.ok()) CHECK(encode(decoded.value()).size() <= message_bytes_max);
  }
}

TEST_CASE("garbage is refused with a sentence") {
  CHECK(decode({}).status().reason() == "message refused: shorter than any message");
  CHECK(decode(bytes_of({9, 0})).status().reason().find("format 9") != std::string::npos);
  CHECK(decode(bytes_of({2, 200})).status().reason().find("kind 200") != std::string::npos);
  CHECK(!decode(Bytes(message_bytes_max + 1)).ok());
}

TEST_CASE("a count alone never makes a list") {
  Bytes bytes = encode(Prepared{{1, 2}, {PeerId{7}}});
  // The count stands behind format, kind and epoch.
  store_little<std::uint32_t>(bytes.data() + 10, 0xffffffff);
  CHECK(decode(bytes).status().reason().find("more items") != std::string::npos);
  store_little<std::uint32_t>(bytes.data() + 10, members_max);
  CHECK(decode(bytes).status().reason().find("cut off") != std::string::npos);
}

TEST_CASE("unknown values of enumerations and truth values are refused") {
  Bytes done = encode(Done{{{1, 1}, {{1}, 2, 3}}, true});
  done.back() = std::byte{2};
  CHECK(!decode(done).ok());
  Bytes refused = encode(NotAdmitted{Status(Code::not_admitted, "no")});
  refused[2] = std::byte{99};
  CHECK(!decode(refused).ok());
}

TEST_CASE("long reasons are cut where a character begins") {
  std::string reason(reason_bytes_max - 1, 'x');
  reason += "\xc3\xa4\xc3\xa4";
  const auto decoded = decode(encode(NotAdmitted{Status(Code::not_admitted, reason)}));
  REQUIRE(decoded.ok());
  const auto& refused = std::get<NotAdmitted>(decoded.value());
  CHECK(refused.status.reason() == std::string(reason_bytes_max - 1, 'x'));
}

TEST_CASE("the largest view fits into a message") {
  View view;
  for (std::uint64_t i = 1; i <= members_max; ++i) {
    MemberInfo member{{i}, std::string(name_bytes_max, 'g'), Role::worker, {}};
    member.addresses.assign(addresses_max, std::string(address_bytes_max, 'a'));
    view.members.push_back(member);
  }
  const std::size_t with_text = decision_bytes + operation_reason_bytes_max;
  for (std::uint32_t i = 0; i < decisions_bytes_max / with_text; ++i) {
    const Status status(Code::timeout, std::string(operation_reason_bytes_max, 'r'));
    view.decisions.push_back({{{1}, 0, i}, Outcome::failed, false, status});
  }
  for (std::uint32_t i = 0; i < tags_max; ++i) view.next_sequences.push_back({{1}, i, 5});
  const auto decoded = decode(encode(view));
  REQUIRE(decoded.ok());
  CHECK(std::get<View>(decoded.value()) == view);
  view.decisions.assign(decisions_max, {{{1}, 0, 7}, Outcome::committed, true, {}});
  CHECK(decode(encode(view)).ok());
  // Each of another subgroup.
  view.decisions.resize(decisions_bytes_max / refusal_bytes,
                        {{{1}, 0, 7}, Outcome::committed, true, {}});
  for (std::uint32_t i = 0; i < view.decisions.size(); ++i) {
    const Status status(Code::timeout, std::string(operation_reason_bytes_max, 'r'));
    view.decisions[i] = {{{(i + 1ull) << 32}, 0, 7}, Outcome::failed, false, status};
    view.subgroups.push_back({view.decisions[i].op.group, {}});
    view.subgroups.back().places.resize(members_max);
  }
  CHECK(decode(encode(view)).ok());
}

TEST_CASE("the largest report fits into a message") {
  Report report;
  const Status status(Code::timeout, std::string(operation_reason_bytes_max, 'r'));
  report.operations.assign(reported_max,
                           {{{1}, 0, 7}, OperationState::posted, false, OnLoss::retry, {}, status});
  report.next_sequences.assign(tags_max, {{1}, 2, 3});
  report.behind_failures.assign(tags_max, {{1}, 2, 3});
  Subgroup subgroup{{1}, {}};
  subgroup.places.resize(members_max);
  report.subgroups.assign(subgroups_max, subgroup);
  CHECK(decode(encode(report)).ok());
}

TEST_CASE("the coordinator's state survives a round trip, and damage is seen") {
  CoordinatorState state{{5}, 3, {}};
  state.view.epoch = {3, 9};
  state.view.members.push_back({{1}, "default", Role::mirror, {"127.0.0.1:5"}});
  const Bytes bytes = encode_state(state);
  REQUIRE(decode_state(bytes).ok());
  CHECK(decode_state(bytes).value() == state);
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    CHECK(!decode_state(ByteView(bytes).first(length)).ok());
  }
}

TEST_CASE("a descriptor looks as its call") {
  Descriptor descriptor;
  descriptor.parts = {{PYCCL_F32, 1000}};
  CHECK(to_string(descriptor) == "all_reduce(sum, f32[1000])");
  descriptor.parts.push_back({PYCCL_I64, 3});
  descriptor.reduce_op = PYCCL_MAX;
  descriptor.on_loss = OnLoss::raise;
  CHECK(to_string(descriptor) == "all_reduce(max, f32[1000], i64[3], on_loss=raise)");
  descriptor = {};
  descriptor.kind = Collective::barrier;
  CHECK(to_string(descriptor) == "barrier()");
  descriptor.kind = Collective::broadcast;
  descriptor.parts = {{200, 1}};
  descriptor.root = 2;
  CHECK(to_string(descriptor) == "broadcast(dtype 200[1], root=2)");
  descriptor.root_peer = {255};
  CHECK(to_string(descriptor) == "broadcast(dtype 200[1], root=2 (peer 00000000000000ff))");
  descriptor = {};
  descriptor.kind = Collective::all_to_all;
  descriptor.parts = {{PYCCL_F32, 0}};
  descriptor.uneven = true;
  CHECK(to_string(descriptor) == "all_to_all(f32[by rank])");
  descriptor.kind = Collective::exchange;
  descriptor.parts = {{PYCCL_F32, 3}};
  descriptor.uneven = false;
  descriptor.algorithm = 7;
  CHECK(to_string(descriptor) == "exchange(f32[3], algorithm=chain)");
}
