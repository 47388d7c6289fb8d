// The shadow of the emulated device's memory: who wrote and read each element last.
//
// Every thread of a phase has a stamp of its own. Stamps rise in the order in which threads run, so those of this launch,
// of this block and of this phase are ranges that end at the newest:
//
//     1 the CPU | ... | launch_ | ... | block_ | ... | phase_ | phase_ + 255
//
// Two threads may meet if they are of different blocks of a launch, or of one block and one phase. So an access is a
// race with an earlier one, whatever the order in which they ran, if the earlier stamp is in [launch_, block_) or in
// [phase_, ...) and not the thread's own. Of all who wrote an element it is enough to know the last: writers before it
// that a thread could meet would have met that one. Of its readers it takes the launch's first, for other blocks, and the
// last two that differ, for other threads of the phase.
#include "checks.hpp"

#include "access.hpp"

#include <cxxabi.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <csetjmp>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace sd_test::checks {
namespace {

using Stamp = std::uint32_t;
constexpr Stamp nobody = 0, the_cpu = 1, first_thread = 2;
constexpr Stamp threads_of_block = 256;

/// Of one element, or of a byte of it, see Piece.
struct Cell {
    Stamp writer, first_reader, reader, other_reader;
};

/// What was allocated at once.
struct Piece {
    char* begin;
    std::size_t bytes;
    int unit_log;    ///< a cell stands for 2 to that many bytes; 0 once somebody has accessed a part of an element
    bool is_shared;  ///< memory of a block
    std::vector<Cell> cells;

    [[nodiscard]] std::size_t unit() const { return std::size_t{1} << unit_log; }
    void split_into_bytes() {
        std::vector<Cell> bytewise(bytes);
        for (std::size_t i = 0; i < bytes; ++i) bytewise[i] = cells[i >> unit_log];
        cells.swap(bytewise);
        unit_log = 0;
    }
};

/// Addresses that are the device's, and nobody else's. A piece begins a page, and at least one free page lies behind it.
class Arena {
public:
    static constexpr std::size_t page = 4096, size = std::size_t{1} << 37;
    static constexpr std::size_t resting = 32;  ///< pieces of a size that are not given out again yet

    static Arena& instance() {
        static Arena* arena = new Arena;
        return *arena;
    }
    [[nodiscard]] bool contains(const void* address) const { return offset(address) < size; }
    [[nodiscard]] Piece* find(const void* address) const { return pieces_[offset(address) / page]; }

    Piece* allocate(std::size_t bytes, std::size_t element_bytes, bool is_shared) {
        const std::lock_guard lock(mutex_);
        const std::size_t pages = (bytes + page - 1) / page;
        auto& free = free_[pages];
        char* begin = nullptr;
        if (free.size() > resting) {
            begin = free.front();
            free.pop_front();
        } else {
            if (used_ + (pages + 1) * page > size) throw std::bad_alloc();
            begin = base_ + used_;
            used_ += (pages + 1) * page;
        }
        const std::size_t unit = std::has_single_bit(element_bytes) && bytes % element_bytes == 0 ? element_bytes : 1;
        auto* piece = new Piece{begin, bytes, std::countr_zero(unit), is_shared, std::vector<Cell>(bytes / unit)};
        std::memset(begin, 0xFF, bytes);
        std::fill_n(pieces_ + offset(begin) / page, pages, piece);
        return piece;
    }
    void release(void* memory) noexcept {
        const std::lock_guard lock(mutex_);
        Piece* piece = find(memory);
        const std::size_t pages = (piece->bytes + page - 1) / page;
        std::fill_n(pieces_ + offset(memory) / page, pages, nullptr);
        if (pages > 16) madvise(memory, pages * page, MADV_DONTNEED);
        free_[pages].push_back(piece->begin);
        delete piece;
    }

    /// Forgets who wrote and read, and keeps what is written.
    void forget_threads() {
        for (std::size_t i = 0; i < used_ / page; ++i) {
            if (pieces_[i] == nullptr || (i > 0 && pieces_[i] == pieces_[i - 1])) continue;
            for (Cell& cell : pieces_[i]->cells) cell = {cell.writer == nobody ? nobody : the_cpu, 0, 0, 0};
        }
    }

    /// Says where an address is, by the piece that is next to it.
    [[nodiscard]] std::string where(const void* address) const {
        constexpr std::size_t pages = 64;  // around it
        const auto* byte = static_cast<const char*>(address);
        const std::size_t own = offset(address) / page;
        const std::size_t last = std::min(own + pages, size / page);
        const Piece *before = nullptr, *behind = nullptr;
        for (std::size_t i = own < pages ? 0 : own - pages; i < last; ++i) {
            const Piece* piece = pieces_[i];
            if (piece == nullptr) continue;
            (piece->begin <= byte ? before : behind) = piece;
            if (behind != nullptr) break;
        }
        const auto words = [](std::ptrdiff_t bytes, const char* place, const Piece& piece) {
            return std::to_string(bytes) + place + std::to_string(piece.bytes) + " bytes of " +
                   (piece.is_shared ? "shared" : "global") + " memory";
        };
        if (before == nullptr && behind == nullptr) return "in memory of the device that nobody holds";
        const auto past = before == nullptr ? PTRDIFF_MAX : byte - (before->begin + before->bytes);
        if (past < 0) return "at byte " + words(byte - before->begin, " of ", *before);
        const auto missing = behind == nullptr ? PTRDIFF_MAX : behind->begin - byte;
        return past < missing ? words(past, " bytes past the end of ", *before)
                              : words(missing, " bytes before ", *behind);
    }

private:
    Arena() {
        base_ = static_cast<char*>(reserve(size));
        pieces_ = static_cast<Piece**>(reserve(size / page * sizeof(Piece*)));
        used_ = page;
    }
    static void* reserve(std::size_t bytes) {
        void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        return memory;
    }
    [[nodiscard]] std::size_t offset(const void* address) const {
        return static_cast<std::size_t>(static_cast<const char*>(address) - base_);
    }

    std::mutex mutex_;
    char* base_ = nullptr;
    std::size_t used_ = 0;
    Piece** pieces_ = nullptr;  ///< by page
    std::map<std::size_t, std::deque<char*>> free_;
};

// The launch under way; the emulator has one at a time. Other threads of the CPU may run beside it.
thread_local bool is_in_kernel = false;
LaunchFacts facts_;
Stamp next_ = first_thread;
Stamp launch_, block_, phase_, own_;
std::int64_t first_block_, current_block_, blocks_done_;
int phase_number_, thread_number_;
const char* frame_;
std::jmp_buf before_launch_;
std::string fault_;
std::mutex cpu_mutex_;
std::string fault_of_cpu_;

std::string name_of_kernel() {
    int status = 0;
    char* readable = abi::__cxa_demangle(facts_.kernel, nullptr, nullptr, &status);
    std::string name = readable != nullptr ? readable : facts_.kernel;
    std::free(readable);
    return name;
}

/// "thread 3 of block 7, phase 1", of a stamp of this launch.
std::string name_of_thread(Stamp stamp) {
    const auto phases = static_cast<Stamp>(facts_.phases);
    const Stamp place = (stamp - launch_) / threads_of_block;
    const std::int64_t turn = place / phases;
    const std::int64_t block = first_block_ == 0 ? turn : first_block_ - turn;
    return "thread " + std::to_string((stamp - launch_) % threads_of_block) + " of block " + std::to_string(block) +
           ", phase " + std::to_string(place % phases);
}

[[noreturn]] void end_launch(const std::string& what) {
    fault_ = "kernel " + name_of_kernel() + ", block " + std::to_string(current_block_) + ", thread " +
             std::to_string(thread_number_) + ", phase " + std::to_string(phase_number_) + ": " + what;
    std::longjmp(before_launch_, 1);
}

std::string name_of(Access access, std::size_t bytes) {
    return (access == Access::read ? "reads " : "writes ") + std::to_string(bytes) + " bytes ";
}

[[noreturn]] void end_access(Access access, const void* address, std::size_t bytes, const std::string& why) {
    end_launch(name_of(access, bytes) + Arena::instance().where(address) + why);
}

[[noreturn]] void end_race(Access access, const void* address, std::size_t bytes, Stamp other, const char* did) {
    end_access(access, address, bytes,
               ", which " + name_of_thread(other) + " " + did + ", with no barrier between them: a race");
}

bool may_meet(Stamp other) { return other >= launch_ && other != own_ && (other < block_ || other >= phase_); }

void check_cell(Cell& cell, const Piece& piece, Access access, const void* address, std::size_t bytes) {
    if (piece.is_shared && cell.writer < block_) cell = {};  // of the block before, whose memory was another's
    if (may_meet(cell.writer)) end_race(access, address, bytes, cell.writer, "wrote");
    if (access == Access::read) {
        if (cell.writer == nobody) end_access(access, address, bytes, ", which nobody has written");
        if (cell.first_reader < launch_) cell.first_reader = own_;
        if (cell.reader != own_) {
            cell.other_reader = cell.reader;
            cell.reader = own_;
        }
        return;
    }
    for (const Stamp reader : {cell.first_reader, cell.reader, cell.other_reader}) {
        if (may_meet(reader)) end_race(access, address, bytes, reader, "read");
    }
    cell.writer = own_;
}

/// Calls use(cell) for all that is known of these bytes of a piece.
template <class Use>
void for_each_cell(Piece& piece, const void* address, std::size_t bytes, const Use& use) {
    const auto at = static_cast<std::size_t>(static_cast<const char*>(address) - piece.begin);
    if ((at | bytes) % piece.unit() != 0) piece.split_into_bytes();
    const std::size_t last = (at + bytes) >> piece.unit_log;
    for (std::size_t i = at >> piece.unit_log; i < last; ++i) use(piece.cells[i]);
}

bool is_of_thread(const void* address) {
    const auto* byte = static_cast<const char*>(address);
    const auto* stack = static_cast<const char*>(__builtin_frame_address(0));
    const auto* arguments = static_cast<const char*>(facts_.arguments);
    return (byte >= stack && byte < frame_) || (byte >= arguments && byte < arguments + facts_.argument_bytes);
}

}  // namespace

void check(Access access, const void* address, std::size_t bytes) {
    static Arena& arena = Arena::instance();
    const bool is_of_device = arena.contains(address);
    if (!is_in_kernel) {
        if (!is_of_device) return;
        const std::lock_guard lock(cpu_mutex_);
        if (fault_of_cpu_.empty()) {
            fault_of_cpu_ = "the CPU " + name_of(access, bytes) + arena.where(address) + " of the device";
        }
        return;
    }
    if (is_of_thread(address)) return;
    is_in_kernel = false;  // what the check itself does is not the kernel's
    if (!is_of_device) end_launch(name_of(access, bytes) + "of the CPU's memory");
    Piece* piece = arena.find(address);
    const char* end = static_cast<const char*>(address) + bytes;
    if (piece == nullptr || end > piece->begin + piece->bytes) end_access(access, address, bytes, ": out of bounds");
    for_each_cell(*piece, address, bytes, [&](Cell& cell) { check_cell(cell, *piece, access, address, bytes); });
    is_in_kernel = true;
}

void misaligned(const char* file, unsigned line, const char* type, std::size_t alignment, const void* address) {
    if (!std::exchange(is_in_kernel, false)) return;
    const std::size_t excess = reinterpret_cast<std::uintptr_t>(address) % alignment;
    const Arena& arena = Arena::instance();
    end_launch(std::string(file) + ":" + std::to_string(line) + ": takes " + type + " " +
               (arena.contains(address) ? arena.where(address) : "of its own") + ", " + std::to_string(excess) +
               " bytes off a multiple of " + std::to_string(alignment) + ": misaligned");
}

void outside_array(const char* file, unsigned line, const char* type, std::ptrdiff_t index) {
    if (!std::exchange(is_in_kernel, false)) return;
    end_launch(std::string(file) + ":" + std::to_string(line) + ": takes element " + std::to_string(index) + " of " +
               type + ": out of bounds");
}

void atomic() {
    if (std::exchange(is_in_kernel, false)) end_launch("begins an atomic operation, of which kernels have none");
}

void* allocate(std::size_t bytes, std::size_t element_bytes) {
    return Arena::instance().allocate(bytes, element_bytes, false)->begin;
}

void release(void* memory) noexcept { Arena::instance().release(memory); }

void copy(void* target, const void* source, std::size_t bytes) {
    if (bytes == 0) return;
    std::memmove(target, source, bytes);
    const Arena& arena = Arena::instance();
    if (!arena.contains(target)) return;
    std::vector<Cell> known;
    if (arena.contains(source)) {
        Piece& from = *arena.find(source);
        for_each_cell(from, source, bytes, [&](const Cell& cell) { known.insert(known.end(), from.unit(), cell); });
    }
    Piece& to = *arena.find(target);
    std::size_t byte = 0;
    for_each_cell(to, target, bytes, [&](Cell& cell) {
        const bool is_written = known.empty() || known[byte].writer != nobody;
        cell = {is_written ? the_cpu : nobody, nobody, nobody, nobody};
        byte += to.unit();
    });
}

Launch::Launch(const LaunchFacts& facts) {
    facts_ = facts;
    const auto stamps =
        static_cast<std::uint64_t>(facts.blocks) * static_cast<std::uint64_t>(facts.phases) * threads_of_block;
    if (next_ + stamps > UINT32_MAX) {
        Arena::instance().forget_threads();
        next_ = first_thread;
    }
    if (next_ + stamps > UINT32_MAX)
        throw std::logic_error("kernel " + name_of_kernel() + ": too many blocks to check");
    launch_ = next_;
    next_ += static_cast<Stamp>(stamps);
    blocks_done_ = 0;
    if (facts.shared_bytes > 0) shared_ = Arena::instance().allocate(facts.shared_bytes, 4, true)->begin;
}

Launch::~Launch() {
    if (shared_ != nullptr) release(shared_);
}

void Launch::run_checked(void (*body)(const void*), const void* argument) {
    {
        const std::lock_guard lock(cpu_mutex_);
        if (!fault_of_cpu_.empty()) throw std::logic_error(std::exchange(fault_of_cpu_, {}));
    }
    if (setjmp(before_launch_) == 0) {
        body(argument);
    } else {
        throw std::logic_error(fault_);
    }
}

void* Launch::begin_block(std::int64_t block) {
    if (blocks_done_ == 0) first_block_ = block;
    current_block_ = block;
    block_ = launch_ + static_cast<Stamp>(blocks_done_ * facts_.phases) * threads_of_block;
    ++blocks_done_;
    if (shared_ != nullptr) std::memset(shared_, 0xFF, facts_.shared_bytes);
    return shared_;
}

void Launch::begin_thread(int phase, int index, const void* frame) {
    phase_number_ = phase;
    thread_number_ = index;
    phase_ = block_ + static_cast<Stamp>(phase) * threads_of_block;
    own_ = phase_ + static_cast<Stamp>(index);
    frame_ = static_cast<const char*>(frame);
    is_in_kernel = true;
}

void Launch::end_thread() { is_in_kernel = false; }

}  // namespace sd_test::checks
