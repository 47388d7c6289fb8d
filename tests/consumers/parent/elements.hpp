// The interface of a library that uses this one.
#pragma once
#include <sd/core/tensor.hpp>

sd::Index count_elements(const sd::Tensor<float>& x);
