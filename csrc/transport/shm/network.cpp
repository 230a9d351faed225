// Offers and answers; see transport/shared_memory.hpp.
//
// An offer names the host as its process sees it, the process, three descriptors and a nonce that
// is written in the memory that it offers. Who gets it opens that memory, and has proved that both
// are on one host when it finds the nonce there; it writes a nonce of its own, tells it in the
// answer, and the offerer has its proof when it finds that one.
#include "transport/shm/network.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string_view>
#include <utility>

#include "transport/shm/bell.hpp"
#include "transport/shm/process.hpp"
#include "transport/shm/stream.hpp"

namespace pyccl::transport::shm {

namespace {

constexpr std::string_view kind = "shm1";  // with the layout of region.hpp

template <class Number>
std::optional<Number> number_of(std::string_view word, int base = 10) {
  Number value{};
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, base);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return value;
}

std::string text_of(const Nonce& nonce) {
  std::array<char, 40> text;
  char* at = std::to_chars(text.data(), text.data() + text.size(), nonce[0], 16).ptr;
  *at++ = ':';
  at = std::to_chars(at, text.data() + text.size(), nonce[1], 16).ptr;
  return {text.data(), at};
}

std::optional<Nonce> nonce_of(std::string_view word) {
  const std::size_t colon = word.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const auto first = number_of<std::uint64_t>(word.substr(0, colon), 16);
  const auto second = number_of<std::uint64_t>(word.substr(colon + 1), 16);
  if (!first || !second) return std::nullopt;
  return Nonce{*first, *second};
}

struct OfferText {
  std::string host;
  pid_t pid = 0;
  int memory = -1;
  int to_offerer = -1;
  int from_offerer = -1;
  std::size_t ring_bytes = 0;
  Nonce nonce{};
};

std::string encode(const OfferText& offer) {
  std::string text(kind);
  for (const std::string& word :
       {offer.host, std::to_string(offer.pid), std::to_string(offer.memory),
        std::to_string(offer.to_offerer), std::to_string(offer.from_offerer),
        std::to_string(offer.ring_bytes), text_of(offer.nonce)}) {
    text += " " + word;
  }
  return text;
}

std::optional<OfferText> decode(std::string_view text) {
  std::array<std::string_view, 8> words;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::size_t space = std::min(text.find(' '), text.size());
    words[i] = text.substr(0, space);
    text.remove_prefix(std::min(space + 1, text.size()));
  }
  const auto pid = number_of<pid_t>(words[2]);
  const auto memory = number_of<int>(words[3]);
  const auto to = number_of<int>(words[4]);
  const auto from = number_of<int>(words[5]);
  const auto ring_bytes = number_of<std::size_t>(words[6]);
  const auto nonce = nonce_of(words[7]);
  if (words[0] != kind || !text.empty() || !pid || *pid <= 0 || !memory || *memory < 0 || !to ||
      *to < 0 || !from || *from < 0 || !ring_bytes || !nonce) {
    return std::nullopt;
  }
  return OfferText{std::string(words[1]), *pid, *memory, *to, *from, *ring_bytes, *nonce};
}

// Finds out whether this end can read the other one's memory, and says so.
ForeignMemory meet(Region& region, std::size_t own_end, bool borrow) {
  const ForeignMemory other(region.whereabouts[1 - own_end]);
  region.borrows[own_end] = borrow && other.readable();
  return other;
}

class Offer final : public MemoryOffer {
 public:
  Offer(Poller& poller, Mapping mapping, Bell bell, const Terms& terms, bool borrow,
        std::string text, std::string remote)
      : poller_(poller),
        mapping_(std::move(mapping)),
        bell_(std::move(bell)),
        terms_(terms),
        borrow_(borrow),
        text_(std::move(text)),
        remote_(std::move(remote)) {}

  const std::string& text() const override { return text_; }

  Result<std::unique_ptr<Stream>> complete(const std::string& answer) override {
    const std::optional<Nonce> nonce = nonce_of(answer);
    // Nothing but zeros is what stands there when nobody has answered.
    if (!nonce || *nonce == Nonce{} || *nonce != mapping_.region().answer) {
      return Status(Code::protocol_violation, "the answer is not what the memory says");
    }
    terms_.other = meet(mapping_.region(), 0, borrow_);
    return std::unique_ptr<Stream>(std::make_unique<ShmStream>(
        poller_, std::move(mapping_), std::move(bell_), 0, terms_, std::move(remote_)));
  }

 private:
  Poller& poller_;
  Mapping mapping_;
  Bell bell_;
  Terms terms_;
  bool borrow_;
  std::string text_;
  std::string remote_;
};

}  // namespace

ShmNetwork::ShmNetwork(Poller& poller, Network& outer, const ShmOptions& options)
    : poller_(poller),
      outer_(outer),
      options_(options),
      prng_(options.seed),
      mark_(Mark::make(draw())) {}

std::size_t ShmNetwork::ring_bytes() const {
  // Each stream and each offer keeps the mark.
  const auto streams = static_cast<std::size_t>(mark_.use_count());
  std::size_t bytes = options_.ring_bytes;
  const std::size_t least = std::max(bytes / 16, Mapping::ring_bytes_min);
  while (bytes > least && 2 * bytes * streams > options_.rings_bytes) bytes /= 2;
  return bytes;
}

Result<std::unique_ptr<MemoryOffer>> ShmNetwork::offer(const std::string& remote) {
  OfferText text;
  text.host = host_identity();
  if (text.host.empty()) return Status(Code::io, "the system does not say which host this is");
  text.ring_bytes = ring_bytes();
  Result<Mapping> mapping = Mapping::create(text.ring_bytes);
  if (!mapping.ok()) return mapping.status();
  Result<Bell> bell = Bell::create();
  if (!bell.ok()) return bell.status();
  Region& region = mapping.value().region();
  text.nonce = region.question = draw();
  if (mark_ != nullptr) region.whereabouts[0] = mark_->whereabouts();
  text.pid = ::getpid();
  text.memory = mapping.value().fd();
  text.to_offerer = bell.value().to_creator();
  text.from_offerer = bell.value().from_creator();
  return std::unique_ptr<MemoryOffer>(std::make_unique<Offer>(
      poller_, mapping.take(), bell.take(), terms(), options_.borrow, encode(text), remote));
}

Result<MemoryAnswer> ShmNetwork::accept(const std::string& offer, const std::string& remote) {
  const std::optional<OfferText> text = decode(offer);
  if (!text) return Status(Code::protocol_violation, "an offer of shared memory makes no sense");
  if (text->host != host_identity()) return Status(Code::io, "it is on another host");
  const Result<OtherProcess> process = OtherProcess::open(text->pid);
  if (!process.ok()) return process.status();
  Result<FileDescriptor> memory = process.value().memory(text->memory);
  if (!memory.ok()) return memory.status();
  Result<Mapping> mapping = Mapping::open(memory.take(), text->ring_bytes);
  if (!mapping.ok()) return mapping.status();
  Region& region = mapping.value().region();
  if (region.question != text->nonce) {
    return Status(Code::io, "the memory that was offered is not the one found here");
  }
  Result<Bell> bell = Bell::open(process.value(), text->to_offerer, text->from_offerer);
  if (!bell.ok()) return bell.status();
  if (mark_ != nullptr) region.whereabouts[1] = mark_->whereabouts();
  Terms its_terms = terms();
  its_terms.other = meet(region, 1, options_.borrow);
  const Nonce nonce = region.answer = draw();
  return MemoryAnswer{
      std::make_unique<ShmStream>(poller_, mapping.take(), bell.take(), 1, its_terms, remote),
      text_of(nonce)};
}

}  // namespace pyccl::transport::shm
