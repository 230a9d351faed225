// What the view says of links, for the group and for some of it.
#include "engine/agreed_links.hpp"

#include <doctest/doctest.h>

using namespace pyccl;
using namespace pyccl::engine;

TEST_CASE("some members of a group go round in the order of its ring") {
  const GroupId group = group_id("default");
  protocol::View view;
  for (std::uint64_t peer = 1; peer <= 5; ++peer) {
    view.members.push_back({{peer}, "default", protocol::Role::worker, {}});
  }
  AgreedLinks links;
  links.install(view, group);
  CHECK(links.among({{1}, {2}, {3}, {4}, {5}}) == collectives::Links{});
  view.links = {{group, 900, 200, 10, 1000, {0, 2, 4, 1, 3}}};
  links.install(view, group);
  const collectives::Links whole{900, 10, 1000, {0, 2, 4, 1, 3}, 200};
  CHECK(links.among({{1}, {2}, {3}, {4}, {5}}) == whole);
  // Peers 1 3 5 2 4 stand round the ring. Of these three: 5, 2 and 4.
  const collectives::Links some{900, 10, 0, {1, 0, 2}, 0};
  CHECK(links.among({{2}, {5}, {4}}) == some);
  view.links.clear();
  links.install(view, group);
  CHECK(links.among({{2}, {5}, {4}}) == collectives::Links{});
}
