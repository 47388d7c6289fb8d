// Names and identities of types.
#include <doctest/doctest.h>

#include <sd/core/communicator.hpp>
#include <sd/core/type_name.hpp>
#include <sd/stochastic_depth/registry.hpp>
#include <sd/train/algorithm.hpp>

#include <set>
#include <span>
#include <string>
#include <vector>

#include "messages.hpp"

namespace {

template <class T>
struct Pair {
    T first, second;
};

struct Quiet {};
struct Named {
    static constexpr const char* name = "named";
};

template <class T>
sd::detail::TypeId id_in_here() {
    struct Local {};
    return sd::detail::type_id<Local>();
}

}  // namespace

TEST_CASE("type name: as the compiler writes it") {
    CHECK(sd::detail::type_name<int>() == "int");
    const std::string pair(sd::detail::type_name<Pair<float>>());
    CHECK(pair.ends_with("Pair<float>"));
    CHECK(sd::detail::name_of<Quiet>().ends_with("Quiet"));
    CHECK(sd::detail::name_of<Named>() == "named");
}

TEST_CASE("type identity: each type has its own, the same everywhere") {
    const std::set<sd::detail::TypeId> ids{sd::detail::type_id<int>(),
                                           sd::detail::type_id<unsigned>(),
                                           sd::detail::type_id<Pair<int>>(),
                                           sd::detail::type_id<Pair<float>>(),
                                           sd::detail::type_id<const int>(),
                                           sd::detail::type_id<Quiet>(),
                                           id_in_here<int>(),
                                           id_in_here<float>()};
    CHECK(ids.size() == 8);
    CHECK(ids.contains(sd::detail::type_id<Pair<float>>()));
}

TEST_CASE("names of branches: by type, whatever instance of a template") {
    sd::register_branch<Pair<float>>("PairBlock");
    sd::register_branch<Pair<double>>("PairBlock");
    sd::register_branch<Quiet>("QuietBlock");
    CHECK(sd::branch_name<Pair<float>>() == "PairBlock");
    CHECK(sd::branch_name<Quiet>() == "QuietBlock");
    CHECK(sd::branch_name<Pair<int>>().empty());
    CHECK(sd::detail::branch_names().ends_with(", PairBlock, QuietBlock"));
    CHECK(sd_test::message_of([] { sd::register_branch<Pair<float>>("Other"); }) ==
          "register_branch: name of a type that has one: got \"Other\", expected \"PairBlock\"");
}

TEST_CASE("type name: a sum of other numbers is refused by the name of their type") {
    std::vector<int> numbers(2);
    CHECK(sd_test::message_of([&] { (void)sd::Communicator().start_sum(std::span(numbers)); }) ==
          "Communicator::start_sum: type of the numbers: got int, expected float or double");
}
