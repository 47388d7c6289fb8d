// A model of AMX's registers in plain C++, to run and check what multiplies on them on any processor: it computes what
// Intel's manual says, bit for bit, and refuses what the hardware would refuse.
#pragma once

#include "sd/cpu/amx.hpp"
#include "sd/cpu/tile_machines.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

SD_NAMESPACE_BEGIN

namespace testing {

/// The instructions of cpu::AmxInstructions. Each thread has registers of its own.
class AmxModel {
public:
    /// Configures the registers, as LDTILECFG. Throws std::logic_error for a configuration that is not allowed.
    static void configure(const cpu::AmxConfiguration& configuration) {
        expect(configuration.palette == 1, "palette other than 1");
        for (const std::uint8_t byte : configuration.reserved) expect(byte == 0, "reserved bytes that are not zero");
        for (int tile = 0; tile < 16; ++tile) {
            const bool exists = tile < tile_count;
            expect(configuration.rows[tile] <= (exists ? rows : 0), "too many rows");
            expect(configuration.row_bytes[tile] <= (exists ? row_bytes : 0), "too many bytes in a row");
        }
        Registers& state = registers();
        state = {};
        state.configuration = configuration;
        state.is_configured = true;
    }
    /// As TILERELEASE.
    static void release() { registers().is_configured = false; }

    /// As TILEZERO.
    template <int tile>
    static void zero() {
        Tile& target = whole_tile<tile>();
        std::memset(&target, 0, sizeof target);
    }
    /// As TILELOADD: row r from r `stride` bytes on.
    template <int tile>
    static void load(const void* from, Index stride) {
        Tile& target = whole_tile<tile>();
        for (Index r = 0; r < rows; ++r) {
            std::memcpy(target.bytes[r], static_cast<const unsigned char*>(from) + r * stride, row_bytes);
        }
    }
    /// As TILESTORED.
    template <int tile>
    static void store(void* to, Index stride) {
        const Tile& source = whole_tile<tile>();
        for (Index r = 0; r < rows; ++r) {
            std::memcpy(static_cast<unsigned char*>(to) + r * stride, source.bytes[r], row_bytes);
        }
    }
    /// As TDPBF16PS: the even and the odd products of a sum are added up apart, each rounded once; then both, then the
    /// sum. Denormal numbers are zeros. A product and its sum are taken in double: of numbers so short, that rounds to
    /// float as if it were exact.
    template <int sums, int left, int right>
    static void multiply() {
        static_assert(sums != left && sums != right && left != right, "the registers must differ");
        Tile& target = whole_tile<sums>();
        const Halves a = halves(whole_tile<left>());
        const Halves b = halves(whole_tile<right>());
        for (Index m = 0; m < rows; ++m) {
            float parts[2][rows] = {};
            for (Index k = 0; k < rows; ++k) {
                for (Index part = 0; part < 2; ++part) {
                    for (Index n = 0; n < rows; ++n) {
                        const double product = a.values[m][part][k] * b.values[k][part][n];
                        parts[part][n] = flushed(static_cast<float>(product + static_cast<double>(parts[part][n])));
                    }
                }
            }
            for (Index n = 0; n < rows; ++n) {
                float sum;
                std::memcpy(&sum, target.bytes[m] + 4 * n, sizeof sum);
                sum = flushed(flushed(sum) + flushed(parts[0][n] + parts[1][n]));
                std::memcpy(target.bytes[m] + 4 * n, &sum, sizeof sum);
            }
        }
    }

private:
    static constexpr int tile_count = 8, rows = 16, row_bytes = 64;

    struct Tile {
        unsigned char bytes[rows][row_bytes];
    };
    struct Registers {
        Tile tiles[tile_count];
        cpu::AmxConfiguration configuration;
        bool is_configured;
    };

    static Registers& registers() {
        thread_local Registers state = {};
        return state;
    }
    static void expect(bool holds, const char* what) {
        if (!holds) throw std::logic_error(std::string("AMX model: got ") + what);
    }
    /// A register, which has to be configured in full.
    template <int tile>
    static Tile& whole_tile() {
        static_assert(tile >= 0 && tile < tile_count, "there are eight registers");
        Registers& state = registers();
        expect(state.is_configured, "an instruction before a configuration");
        expect(state.configuration.rows[tile] == rows && state.configuration.row_bytes[tile] == row_bytes,
               "a register with fewer rows or bytes than it is used with");
        return state.tiles[tile];
    }

    static float flushed(float value) {
        return std::abs(value) < std::numeric_limits<float>::min() ? std::copysign(0.0F, value) : value;
    }

    /// The bfloat16 of a register: (row, part, pair).
    struct Halves {
        double values[rows][2][rows];
    };
    static Halves halves(const Tile& tile) {
        Halves result;
        for (Index row = 0; row < rows; ++row) {
            for (Index column = 0; column < 2 * rows; ++column) {
                std::uint16_t bits;
                std::memcpy(&bits, tile.bytes[row] + 2 * column, sizeof bits);
                const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
                result.values[row][column % 2][column / 2] = static_cast<double>(flushed(value));
            }
        }
        return result;
    }
};

/// The machine of the model.
inline constexpr cpu::TileMachine amx_model = {
    .name = "amx_model",
    .cache_bytes = Index{2} << 20,
    .beats_winograd = true,
    .begin = [] { AmxModel::configure({}); },
    .end = &AmxModel::release,
    .multiply = &cpu::multiply_by_amx<AmxModel>,
};

}  // namespace testing

SD_NAMESPACE_END
