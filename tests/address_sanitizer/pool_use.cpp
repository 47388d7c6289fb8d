// Uses the pool's memory rightly or in one wrong way, which the address sanitizer must end the program for.
//
//     pool_use right|past_end|past_end_in_reused_block|released|released_and_poisoned|past_end_of_list
#include "sd/core/tensor.hpp"

#include <cmath>
#include <iostream>
#include <map>
#include <string>

namespace {

using sd::Tensor;

float read(const float* element) { return *static_cast<const volatile float*>(element); }

// Three elements end within 8 bytes that the sanitizer looks at together.
float past_end() { return read(Tensor<float>({3}, {1, 2, 3}).data() + 3); }

float past_end_in_reused_block() {
    const float* block = Tensor<float>(sd::Shape{32}).data();
    const Tensor<float> smaller(sd::Shape{17});
    if (smaller.data() != block) return 0;  // no such case: the test then sees no error and fails
    return read(smaller.data() + 17);
}

float released() {
    const float* element = Tensor<float>(sd::Shape{5}).data();
    return read(element);
}

float released_and_poisoned() {
    const float* element = Tensor<float>(sd::Shape{5}).data();
    sd::poison_pool();
    return read(element);
}

float past_end_of_list() {
    const sd::PooledVector<float> list(3);
    return read(list.data() + 3);
}

// Takes blocks anew, larger and smaller, in part, poisoned and from the system; 0 if all is as it should be.
float right() {
    float sum = 0;
    for (const sd::Index size : {32, 17, 32, 1, 30}) {
        Tensor<float> x(sd::Shape{size});
        sum += read(x.data()) + read(x.data() + size - 1);
    }
    sd::poison_pool();
    const bool poisoned = std::isnan(read(Tensor<float>::empty({30}).data() + 29));
    sd::trim_pool();
    const Tensor<float> anew(sd::Shape{32});
    return poisoned ? sum + read(anew.data() + 31) : 1;
}

}  // namespace

int main(int count, char** arguments) {
    const std::map<std::string, float (*)()> uses = {{"right", right},
                                                     {"past_end", past_end},
                                                     {"past_end_in_reused_block", past_end_in_reused_block},
                                                     {"released", released},
                                                     {"released_and_poisoned", released_and_poisoned},
                                                     {"past_end_of_list", past_end_of_list}};
    const auto use = uses.find(count == 2 ? arguments[1] : "");
    if (use == uses.end()) {
        std::cerr << "pool_use: got no known use, expected one of those at the top of the file\n";
        return 2;
    }
    return use->second() == 0 ? 0 : 1;
}
