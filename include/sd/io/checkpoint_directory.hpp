// The checkpoints of a run: the last few in a folder of their own. Needs nlohmann/json and zlib.
#pragma once

#if defined(_WIN32)
#include "sd/io/checkpoint_directory.hpp needs flock(), which Windows does not have"
#endif

#include "sd/core/warning.hpp"
#include "sd/io/checkpoint.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <filesystem>
#include <iomanip>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/file.h>
#include <system_error>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// A checkpoint that was passed over, and why.
struct SkippedCheckpoint {
    std::filesystem::path path;  ///< the file
    std::string reason;          ///< the error with which it was refused
};

/// The checkpoint that a run goes on from.
struct FoundCheckpoint {
    std::filesystem::path path;              ///< the file
    std::vector<SkippedCheckpoint> skipped;  ///< newer ones that were refused, the newest first
};

namespace detail {

/// The name of the checkpoint after so many batches of the run: names sort as the numbers do.
inline std::string checkpoint_name(Index batches) {
    return text("checkpoint-", std::setw(12), std::setfill('0'), batches, ".safetensors");
}

/// The number of batches in a checkpoint's name; nothing for any other name.
inline std::optional<Index> batches_in_name(const std::string& name) {
    const std::size_t first = std::min(name.size(), std::string_view("checkpoint-").size());
    Index batches = -1;
    std::from_chars(name.data() + first, name.data() + name.size(), batches);
    return batches >= 0 && name == checkpoint_name(batches) ? std::optional(batches) : std::nullopt;
}

/// Creates a folder and those above it that are missing, all of them on the disk when it returns.
inline void create_directories_on_disk(const std::filesystem::path& directory) {
    std::error_code error;
    if (std::filesystem::is_directory(directory, error)) return;
    create_directories_on_disk(directory.parent_path());
    if (!std::filesystem::create_directory(directory, error) && error) {
        refuse_file(directory.string(), "creating the folder", error.message(), "a folder for checkpoints");
    }
    synchronise_directory(directory.parent_path());
}

/// Opens a folder and locks it for this process, as far as the file system can.
inline int open_locked(const std::filesystem::path& directory) {
    const int descriptor = ::open(directory.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (descriptor < 0) refuse_file(directory.string(), "opening", system_message(), "a readable folder");
    if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        ::close(descriptor);
        refuse_file(directory.string(), "folder of checkpoints", "one that another run holds", "a folder for each run");
    }
    return descriptor;
}

}  // namespace detail

/// The last few checkpoints of one run, `checkpoint-BATCHES.safetensors`, in a folder that it holds alone: a second run
/// is refused as long as the first one lives. Files of other names are left alone, but for what a killed run left of a
/// checkpoint half written.
class CheckpointDirectory {
public:
    /// Creates the folder if there is none. `keep`: how many checkpoints stay, 1 or more.
    /// Throws std::invalid_argument for another number or an empty path, std::runtime_error if the folder cannot be
    /// used or written.
    explicit CheckpointDirectory(const std::filesystem::path& path, Index keep)
        : path_(absolute(path)), keep_(keep), lock_(lock(path_, keep)) {
        for (const auto& file : std::filesystem::directory_iterator(path_)) {
            if (file.is_regular_file() && detail::is_temporary_name(file.path().filename().string())) {
                std::filesystem::remove(file.path());
            }
        }
        detail::expect_writable_directory(path_, path_);
    }

    /// The folder.
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }

    /// The checkpoints in the folder, the oldest first, by name alone.
    [[nodiscard]] std::vector<std::filesystem::path> checkpoints() const { return checkpoints_in(path_); }

    /// The same of a folder that this does not hold, and that perhaps is none.
    [[nodiscard]] static std::vector<std::filesystem::path> checkpoints_in(const std::filesystem::path& path) {
        if (!std::filesystem::is_directory(path)) return {};
        std::vector<std::pair<Index, std::filesystem::path>> numbered;
        for (const auto& file : std::filesystem::directory_iterator(path)) {
            if (const auto batches = detail::batches_in_name(file.path().filename().string())) {
                numbered.emplace_back(*batches, file.path());
            }
        }
        std::sort(numbered.begin(), numbered.end());
        std::vector<std::filesystem::path> paths;
        for (auto& [batches, file] : numbered) paths.push_back(std::move(file));
        return paths;
    }

    /// Calls load(checkpoint) with the newest one that is whole and that load does not refuse by std::runtime_error;
    /// newer ones are passed over, stay where they are, and never count as kept. Nothing if the folder has none.
    /// Throws std::runtime_error, saying why, if there are checkpoints and every one is refused; rethrows what else
    /// load throws.
    template <class Load>
    std::optional<FoundCheckpoint> load_newest(const Load& load) {
        std::vector<std::filesystem::path> candidates = checkpoints();
        std::vector<SkippedCheckpoint> skipped;
        for (; !candidates.empty(); candidates.pop_back()) {
            try {
                load(read_checkpoint(candidates.back()));
                kept_ = candidates;
                remove_old();
                return FoundCheckpoint{candidates.back(), std::move(skipped)};
            } catch (const std::runtime_error& error) {
                skipped.push_back({candidates.back(), error.what()});
            }
        }
        if (skipped.empty()) return std::nullopt;
        std::string reasons;
        for (const SkippedCheckpoint& one : skipped) reasons += "\n" + one.reason;
        refuse_file(path_.string(), "checkpoints", text(skipped.size(), ", none to go on from"),
                    "one that is whole and of this run:" + reasons);
    }

    /// Writes a checkpoint after so many batches. Once it is safe on the disk, those before the last `keep` go.
    /// Throws std::runtime_error if it could not be written; all others are then still there.
    void save(Index batches, const Checkpoint& checkpoint) {
        const std::filesystem::path file = path_ / detail::checkpoint_name(batches);
        write_checkpoint(file, checkpoint);
        if (kept_.empty() || kept_.back() != file) kept_.push_back(file);
        remove_old();
    }

private:
    /// The path from the root on, without a slash at its end.
    static std::filesystem::path absolute(const std::filesystem::path& path) {
        if (path.empty()) refuse("CheckpointDirectory", "path", "an empty one", "a folder for checkpoints");
        return std::filesystem::absolute(path / "").parent_path();
    }
    static int lock(const std::filesystem::path& path, Index keep) {
        if (keep < 1) refuse("CheckpointDirectory", "keep", keep, "1 or more");
        detail::create_directories_on_disk(path);
        return detail::open_locked(path);
    }

    void remove_old() {
        while (static_cast<Index>(kept_.size()) > keep_) {
            std::error_code error;
            std::filesystem::remove(kept_.front(), error);
            if (error) warn(text(kept_.front().string(), ": an old checkpoint is left: ", error.message()));
            kept_.erase(kept_.begin());
        }
    }

    std::filesystem::path path_;
    Index keep_;
    detail::FileDescriptor lock_;
    std::vector<std::filesystem::path> kept_;  ///< the run's own, the oldest first
};

SD_NAMESPACE_END
