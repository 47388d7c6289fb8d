#include "elements.hpp"

sd::Index count_elements(const sd::Tensor<float>& x) { return x.size(); }
