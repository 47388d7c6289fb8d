// What GCC calls in units compiled with -fsanitize=thread,bounds,alignment, in place of the sanitizers' own
// libraries: names and arguments are those of libtsan and libubsan.
#include "access.hpp"

#include <cstdint>

using sd_test::checks::Access;
using sd_test::checks::check;

// Functions that no header declares, and atomic operations of types that C++ has no name for.
#pragma GCC diagnostic ignored "-Wmissing-declarations"
#pragma GCC diagnostic ignored "-Wpedantic"

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read_range(void* address, std::size_t bytes) { check(Access::read, address, bytes); }
void __tsan_write_range(void* address, std::size_t bytes) { check(Access::write, address, bytes); }

#define SD_ACCESS(bytes)                                                                               \
    void __tsan_read##bytes(void* address) { check(Access::read, address, bytes); }                    \
    void __tsan_write##bytes(void* address) { check(Access::write, address, bytes); }                  \
    void __tsan_volatile_read##bytes(void* address) { check(Access::read, address, bytes); }           \
    void __tsan_volatile_write##bytes(void* address) { check(Access::write, address, bytes); }         \
    void __tsan_unaligned_read##bytes(void* address) { check(Access::read, address, bytes); }          \
    void __tsan_unaligned_write##bytes(void* address) { check(Access::write, address, bytes); }        \
    void __tsan_unaligned_volatile_read##bytes(void* address) { check(Access::read, address, bytes); } \
    void __tsan_unaligned_volatile_write##bytes(void* address) { check(Access::write, address, bytes); }
SD_ACCESS(1)
SD_ACCESS(2)
SD_ACCESS(4)
SD_ACCESS(8)
SD_ACCESS(16)

// Atomic operations of the CPU's code; kernels have none. All are sequentially consistent.
#define SD_ATOMIC_UPDATE(bits, name)                                                                                  \
    std::uint##bits##_t __tsan_atomic##bits##_##name(volatile std::uint##bits##_t* target, std::uint##bits##_t value, \
                                                     int) {                                                           \
        sd_test::checks::atomic();                                                                                    \
        return __atomic_##name(target, value, __ATOMIC_SEQ_CST);                                                      \
    }
#define SD_ATOMIC_EXCHANGE(bits, strength, is_weak)                                                                 \
    int __tsan_atomic##bits##_compare_exchange_##strength(                                                          \
        volatile std::uint##bits##_t* target, std::uint##bits##_t* expected, std::uint##bits##_t value, int, int) { \
        sd_test::checks::atomic();                                                                                  \
        return __atomic_compare_exchange_n(target, expected, value, is_weak, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);   \
    }
#define SD_ATOMIC(bits)                                                                                      \
    std::uint##bits##_t __tsan_atomic##bits##_load(const volatile std::uint##bits##_t* source, int) {        \
        sd_test::checks::atomic();                                                                           \
        return __atomic_load_n(source, __ATOMIC_SEQ_CST);                                                    \
    }                                                                                                        \
    void __tsan_atomic##bits##_store(volatile std::uint##bits##_t* target, std::uint##bits##_t value, int) { \
        sd_test::checks::atomic();                                                                           \
        __atomic_store_n(target, value, __ATOMIC_SEQ_CST);                                                   \
    }                                                                                                        \
    std::uint##bits##_t __tsan_atomic##bits##_exchange(volatile std::uint##bits##_t* target,                 \
                                                       std::uint##bits##_t value, int) {                     \
        sd_test::checks::atomic();                                                                           \
        return __atomic_exchange_n(target, value, __ATOMIC_SEQ_CST);                                         \
    }                                                                                                        \
    SD_ATOMIC_UPDATE(bits, fetch_add)                                                                        \
    SD_ATOMIC_UPDATE(bits, fetch_sub)                                                                        \
    SD_ATOMIC_UPDATE(bits, fetch_and)                                                                        \
    SD_ATOMIC_UPDATE(bits, fetch_or)                                                                         \
    SD_ATOMIC_UPDATE(bits, fetch_xor)                                                                        \
    SD_ATOMIC_EXCHANGE(bits, strong, false)                                                                  \
    SD_ATOMIC_EXCHANGE(bits, weak, true)
SD_ATOMIC(8)
SD_ATOMIC(16)
SD_ATOMIC(32)
SD_ATOMIC(64)
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }

// What libubsan's functions are given.
struct SourcePlace {
    const char* file;
    std::uint32_t line, column;
};
struct TypeName {
    std::uint16_t kind, information;
    char name[1];
};
struct TypeMismatch {
    SourcePlace place;
    const TypeName* type;
    unsigned char log_alignment, kind;
};
struct OutOfBounds {
    SourcePlace place;
    const TypeName *array, *index;
};

void __ubsan_handle_type_mismatch_v1(const TypeMismatch* what, void* address) {
    sd_test::checks::misaligned(what->place.file, what->place.line, what->type->name,
                                std::size_t{1} << what->log_alignment, address);
}
void __ubsan_handle_out_of_bounds(const OutOfBounds* what, void* index) {
    sd_test::checks::outside_array(what->place.file, what->place.line, what->array->name,
                                   reinterpret_cast<std::ptrdiff_t>(index));
}

}  // extern "C"
