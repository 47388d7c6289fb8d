// The main function of every test program; it prints the seed that all random inputs come from.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "random.hpp"

#include <iostream>

int main(int argc, char** argv) {
    std::cout << "seed " << sd_test::seed << std::endl;
    return doctest::Context(argc, argv).run();
}
