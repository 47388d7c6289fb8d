// What the processes of one job do together. Everything that trains on several processes knows this interface alone.
#pragma once

#include "sd/core/shape.hpp"
#include "sd/core/type_name.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// A sum over ranks that was started and may be under way.
class PendingSum {
public:
    PendingSum() = default;
    PendingSum(const PendingSum&) = delete;
    PendingSum& operator=(const PendingSum&) = delete;
    virtual ~PendingSum() = default;

    /// Moves the messages on, without waiting for any. Where nobody else does, the sum stands still between the calls.
    virtual void advance() {}
    /// Waits until the numbers are the sum. To be called before this goes, and by all ranks in the order in which they
    /// started their sums: a rank that waits for one sum does not move the others on. Where an exception comes between,
    /// this and the numbers must stay, see keep_for_ever().
    virtual void finish() {}
};

/// Keeps something as long as the program runs: the memory of messages that are under way and that nobody waits for any
/// more. They cannot be called back, and after an error the other ranks may never come to the call that would end them.
template <class Kept>
void keep_for_ever(Kept kept) {
    static auto& all = *new std::vector<std::shared_ptr<Kept>>();  // never destroyed
    all.push_back(std::make_shared<Kept>(std::move(kept)));
}

/// What a rank has sent to others so far, and how long it was held up by it.
struct Traffic {
    std::int64_t bytes_sent = 0;  ///< payload that left this rank
    double seconds = 0;           ///< inside calls: adding up and waiting included, what goes on between calls not
};

/// The processes ("ranks") of a job. This class is the job of one process; others derive from it.
///
/// Every rank makes the same calls in the same order, but that it may move on sums under way at any time. All ranks get
/// the same bits from a call, the same ones whenever as many ranks give the same numbers. Pointers are to the memory of
/// the communicator's device. Calls throw std::runtime_error if the job is broken.
class Communicator {
public:
    Communicator() = default;
    Communicator(const Communicator&) = delete;
    Communicator& operator=(const Communicator&) = delete;
    virtual ~Communicator() = default;

    /// The number of this process, 0 to size() - 1.
    [[nodiscard]] virtual Index rank() const { return 0; }
    /// How many processes there are.
    [[nodiscard]] virtual Index size() const { return 1; }
    /// Whether all ranks run on one machine, whose processors then also move the messages.
    [[nodiscard]] virtual bool is_one_machine() const { return true; }
    /// What this rank has sent so far.
    [[nodiscard]] virtual Traffic traffic() const { return {}; }

    /// Gives every rank the elements that rank 0 has.
    template <class T>
    requires std::is_trivially_copyable_v<T>
    void broadcast(std::span<T> elements) { broadcast_bytes(std::as_writable_bytes(elements)); }

    /// Gives every rank the elements of all ranks, in rank order; `all` has size() times as many as `own`.
    /// Throws std::invalid_argument otherwise.
    template <class T>
    requires std::is_trivially_copyable_v<T>
    void all_gather(std::span<const T> own, std::span<T> all) {
        if (static_cast<Index>(all.size()) != size() * static_cast<Index>(own.size())) {
            refuse("Communicator::all_gather", "room for elements", all.size(),
                   text(own.size(), " for each of ", size(), " ranks"));
        }
        all_gather_bytes(std::as_bytes(own), std::as_writable_bytes(all));
    }

    /// Starts to replace every number by its sum over all ranks, added in rank order. The numbers may not be touched
    /// before the sum is finished, and all ranks give as many. Throws std::invalid_argument unless T is float or
    /// double.
    template <class T>
    [[nodiscard]] std::unique_ptr<PendingSum> start_sum(std::span<T> numbers) {
        if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double>) {
            return start_sum_of(numbers);
        } else {
            refuse("Communicator::start_sum", "type of the numbers", detail::type_name<T>(), "float or double");
        }
    }

protected:
    /// broadcast() of any elements.
    virtual void broadcast_bytes(std::span<std::byte>) {}
    /// all_gather() of any elements.
    virtual void all_gather_bytes(std::span<const std::byte> own, std::span<std::byte> all) {
        std::copy(own.begin(), own.end(), all.begin());
    }
    /// start_sum() of floats.
    [[nodiscard]] virtual std::unique_ptr<PendingSum> start_sum_of(std::span<float>) {
        return std::make_unique<PendingSum>();
    }
    /// start_sum() of doubles.
    [[nodiscard]] virtual std::unique_ptr<PendingSum> start_sum_of(std::span<double>) {
        return std::make_unique<PendingSum>();
    }
};

SD_NAMESPACE_END
