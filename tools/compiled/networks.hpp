// The library's networks, compiled once for all of our own programs that take them by name or by build.
#pragma once

#include "../networks.hpp"

#define SD_COMPILED_NETWORKS(linkage, T)                                                                        \
    linkage template tools::AnyNetwork<T> tools::make_network<T>(const std::string&, const sd::ResNetOptions&); \
    linkage template tools::AnyNetwork<T> tools::make_network<T>(const sd::ResNetArchitecture&, bool,           \
                                                                 const sd::ResNetOptions&);                     \
    linkage template tools::AnyNetwork<T> tools::make_network<T>(const sd::ConvNeXtArchitecture&,               \
                                                                 const sd::ConvNeXtOptions&);                   \
    linkage template tools::AnyNetwork<T> tools::make_network<T>(const sd::EfficientNetArchitecture&,           \
                                                                 const sd::EfficientNetOptions&);               \
    linkage template tools::AnyNetwork<T> tools::make_network<T>(const sd::RegNetArchitecture&,                 \
                                                                 const sd::RegNetOptions&)

SD_COMPILED_NETWORKS(extern, float);
SD_COMPILED_NETWORKS(extern, double);
SD_COMPILED_NETWORKS(extern, sd::bfloat16);
