// sd_train: trains a residual network with stochastic depth from the command line.
#include "datasets.hpp"
#include "device.hpp"
#include "interrupt.hpp"
#include "logs.hpp"
#include "networks.hpp"
#include "ranks.hpp"
#include "settings_file.hpp"

#include "sd/io/state_dict.hpp"
#include "sd/train/checkpoint_saver.hpp"
#include "sd/training.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <iostream>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace {

using sd::Index;
using tools::Device;

struct Settings {
    std::string config;
    std::string data = "synthetic";
    Index image_size = 224;
    std::string model = "cifar_resnet20";
    std::string duration = "3ep";
    Index batch_size = 128;
    Index grad_accum = 1;
    std::string optimizer = "sgd";
    std::optional<double> learning_rate, momentum, weight_decay, alpha, eps;  // none: the optimizer's
    std::vector<std::string> no_decay;
    std::string lr_schedule = "constant";
    double ema = 0;
    std::string stochastic_method = "none";
    std::string compute = "all";
    std::string scaling = "inference";
    double drop_rate = 0.2;
    std::string drop_distribution = "linear";
    std::string drop_warmup = "0";
    double label_smoothing = 0;
    double mixup = 0;
    double cutmix = 0;
    double random_erasing = 0;
    std::string eval_interval = "1ep";
    std::uint64_t seed = 42;
    Index ranks = 1;
    bool sync_batch_norm = false;
    bool use_same_gpu_seed = true;
    int threads = 0;
    Index workers = sd::PrefetchOptions{}.workers;
    std::string log = "console";
    std::string weights;
    bool reset_classifier = false;
    std::vector<std::string> freeze;
    std::string save;
    std::string checkpoint_dir;
    std::string checkpoint_interval = "1ep";
    Index keep = 3;
    bool resume = false;
    std::string precision = "float";
#if defined(SD_TOOLS_CUDA)
    bool step_graph = false;
#else
    static constexpr bool step_graph = false;
#endif
};

/// Accepts a text that `parse` accepts; the message of a refusal is the library's.
template <class Parse>
CLI::Validator parsed_by(const Parse& parse, const std::string& form) {
    return CLI::Validator(
        [parse](const std::string& value) -> std::string {
            try {
                parse(value);
                return {};
            } catch (const std::invalid_argument& error) {
                return error.what();
            }
        },
        form);
}

/// Puts options under the headings that --help lists them by.
void group_options(CLI::App& app) {
    const auto group = [&](const char* heading, std::initializer_list<const char*> names) {
        for (const char* name : names) app.get_option(name)->group(heading);
    };
    group("Data", {"--data", "--image-size", "--batch-size", "--workers"});
    group("Network", {"--model", "--precision", "--weights", "--reset-classifier", "--freeze"});
    group("Stochastic depth",
          {"--stochastic-method", "--compute", "--scaling", "--drop-rate", "--drop-distribution", "--drop-warmup"});
    group("Optimisation", {"--optimizer", "--learning-rate", "--lr-schedule", "--momentum", "--weight-decay",
                           "--no-decay", "--alpha", "--eps", "--grad-accum", "--ema"});
    group("Regularisation and augmentation", {"--label-smoothing", "--mixup", "--cutmix", "--random-erasing"});
    group("Run and output", {"--config", "--duration", "--eval-interval", "--seed", "--threads", "--log", "--save",
                             "--checkpoint-dir", "--checkpoint-interval", "--keep", "--resume"});
    group("Several processes", {"--ranks", "--sync-batch-norm", "--use-same-gpu-seed"});
#if defined(SD_TOOLS_CUDA)
    group("GPU", {"--cuda-graph"});
#endif
}

void add_options(CLI::App& app, Settings& settings) {
    const auto finite = [](double least) {
        return CLI::Validator(
            [least](const std::string& value) -> std::string {
                const auto number = sd::detail::parse_finite(value);
                const bool sound = number && sd::is_in_range(*number, least);
                return sound ? std::string() : sd::text(value, " is not a finite number of ", least, " or more");
            },
            sd::text("NUMBER >= ", least));
    };
    const auto rate = CLI::Validator(
        [](const std::string& value) -> std::string {
            const auto number = sd::detail::parse_finite(value);
            const bool sound = number && sd::is_in_range(*number, 0, 1);
            return sound ? std::string() : value + " is not a number from 0 to 1";
        },
        "0..1");
    const auto data = CLI::Validator(
        [](const std::string& value) {
            return tools::is_data_name(value) ? std::string() : value + " is none of " + tools::data_names();
        },
        tools::data_names());
    app.add_option("--data", settings.data, "what to train on")->check(data)->capture_default_str();
    app.add_option("--image-size", settings.image_size, "side of the squares cut from a folder's images")
        ->check(CLI::Range(Index{1}, Index{8192}))
        ->capture_default_str();
    app.add_option("--model", settings.model)->check(CLI::IsMember(tools::network_names()))->capture_default_str();
    const auto time = [](const std::string& value) { (void)sd::Time(value); };
    app.add_option("--duration", settings.duration, "of the run: 90ep, 500ba or 1e6sp")
        ->check(parsed_by([](const std::string& value) { (void)sd::run_length(value, 1, 1, 1); }, "TIME"))
        ->capture_default_str();
    app.add_option("--batch-size", settings.batch_size)
        ->check(CLI::Range(Index{1}, Index{1} << 20))
        ->capture_default_str();
    app.add_option("--grad-accum", settings.grad_accum,
                   "parts of a batch that go through the model one after the other")
        ->check(CLI::Range(Index{1}, Index{1} << 20))
        ->capture_default_str();
    app.add_option("--optimizer", settings.optimizer)
        ->check(CLI::IsMember({"sgd", "adamw", "rmsprop", "rmsprop_tf"}))
        ->capture_default_str();
    app.add_option("--learning-rate", settings.learning_rate, "default: 0.1 of sgd, 0.001 of adamw, 0.01 of the others")
        ->check(finite(0));
    app.add_option("--lr-schedule", settings.lr_schedule,
                   "constant, cosine or multistep:0.5dur,0.75dur:0.1, each perhaps after warmup:5ep,")
        ->check(parsed_by([](const std::string& value) { (void)sd::LearningRateSchedule(value); }, "SCHEDULE"))
        ->capture_default_str();
    app.add_option("--momentum", settings.momentum, "of all but adamw; default: 0.9")->check(finite(0));
    app.add_option("--weight-decay", settings.weight_decay, "default: 0.01 of adamw, 0.0001 of the others")
        ->check(finite(0));
    app.add_option(
           "--no-decay", settings.no_decay,
           "parameters without weight decay: norms_and_biases, those of one dimension, or starts of their names")
        ->delimiter(',');
    app.add_option("--alpha", settings.alpha, "share of the old mean square in rmsprop and rmsprop_tf; default: 0.9")
        ->check(rate);
    app.add_option("--eps", settings.eps, "of all but sgd; default: 1e-8 of adamw and rmsprop, 0.001 of rmsprop_tf")
        ->check(finite(0));
    app.add_option("--ema", settings.ema,
                   "decay of averages of the weights, such as 0.9999, with which evaluations are made; 0: none")
        ->check(parsed_by(
            [](const std::string& value) {
                const auto number = sd::detail::parse_finite(value);
                if (!number) sd::refuse("WeightAveraging", "decay", value, "a number from 0 to less than 1");
                (void)sd::WeightAveraging({.decay = *number});
            },
            "0..<1"))
        ->capture_default_str();
    app.add_option("--stochastic-method", settings.stochastic_method)
        ->check(CLI::IsMember({"none", "block", "sample", "subset"}))
        ->capture_default_str();
    app.add_option("--compute", settings.compute, "what sample-wise branches compute")
        ->check(CLI::IsMember({"all", "survivors"}))
        ->capture_default_str();
    app.add_option("--scaling", settings.scaling)->check(CLI::IsMember({"inference", "train"}))->capture_default_str();
    app.add_option("--drop-rate", settings.drop_rate)->check(rate)->capture_default_str();
    app.add_option("--drop-distribution", settings.drop_distribution)
        ->check(CLI::IsMember({"uniform", "linear", "linear_huang", "linear_efficientnet"}))
        ->capture_default_str();
    app.add_option("--drop-warmup", settings.drop_warmup, "until the drop rates are full: 0.1, 0.1dur, 5ep or 500ba")
        ->check(parsed_by([](const std::string& value) { (void)sd::TimeOrFraction(value); }, "TIME"))
        ->capture_default_str();
    app.add_option("--label-smoothing", settings.label_smoothing)->check(rate)->capture_default_str();
    app.add_option("--mixup", settings.mixup, "alpha of the Beta distribution; 0: none")
        ->check(finite(0))
        ->capture_default_str();
    app.add_option("--cutmix", settings.cutmix, "the same for CutMix; with both, one of them for each batch, by chance")
        ->check(finite(0))
        ->capture_default_str();
    app.add_option("--random-erasing", settings.random_erasing, "chance that a box of a training image is set to zero")
        ->check(rate)
        ->capture_default_str();
    app.add_option("--eval-interval", settings.eval_interval, "between evaluations")
        ->check(parsed_by(time, "TIME"))
        ->capture_default_str();
    app.add_option("--seed", settings.seed)->capture_default_str();
    app.add_option("--ranks", settings.ranks, "processes that share each batch; ./run starts them by mpirun")
        ->check(CLI::Range(Index{1}, Index{1} << 20))
        ->capture_default_str();
    app.add_flag("--sync-batch-norm", settings.sync_batch_norm, "batch statistics are those of all ranks");
    app.add_option("--use-same-gpu-seed", settings.use_same_gpu_seed, "block-wise: all ranks drop the same blocks")
        ->default_str("true");
    app.add_option("--threads", settings.threads, "of each rank; 0: as many as there are")
        ->check(CLI::Range(0, 4096))
        ->capture_default_str();
    app.add_option("--workers", settings.workers, "threads that load batches ahead")
        ->check(CLI::Range(1, 1024))
        ->capture_default_str();
    app.add_option("--log", settings.log, "console, jsonl:FILE, csv:FILE, tensorboard:DIR, with commas between them")
        ->check(parsed_by([](const std::string& value) { (void)tools::parse_logs(value); }, "DESTINATIONS"))
        ->capture_default_str();
    CLI::Option* weights = app.add_option("--weights", settings.weights,
                                          "safetensors file to start from, or an index of several, with torchvision's "
                                          "names");
    app.add_flag("--reset-classifier", settings.reset_classifier,
                 "start the last layer, fc, anew: --weights may have other classes")
        ->needs(weights);
    app.add_option("--freeze", settings.freeze,
                   "starts of names of parameters that are not trained, such as conv1,bn1,layer1.")
        ->delimiter(',');
    app.add_option("--save", settings.save,
                   "safetensors file for the weights, written after each epoch and at the end");
    CLI::Option* directory = app.add_option("--checkpoint-dir", settings.checkpoint_dir, "the run's own folder");
    app.add_option("--checkpoint-interval", settings.checkpoint_interval, "between checkpoints")
        ->needs(directory)
        ->check(parsed_by(time, "TIME"))
        ->capture_default_str();
    app.add_option("--keep", settings.keep, "checkpoints that stay")
        ->needs(directory)
        ->check(CLI::Range(Index{1}, Index{1} << 20))
        ->capture_default_str();
    app.add_flag("--resume", settings.resume, "go on from the newest checkpoint, if there is one")
        ->needs(directory)
        ->configurable(false);
    app.add_option("--precision", settings.precision, "of images between layers; on a GPU of products too")
        ->check(CLI::IsMember(tools::precisions))
        ->capture_default_str();
#if defined(SD_TOOLS_CUDA)
    app.add_flag("--cuda-graph", settings.step_graph, "start each training step as one CUDA graph");
#endif
    app.add_option("--config", settings.config,
                   "file of settings, such as the settings.toml of another run; the command line wins")
        ->configurable(false);
    group_options(app);
}

/// Writes the model's weights after each epoch and at the end, or their averages if there are any.
template <class Model>
struct WeightsWriter {
    using State = sd::State<typename Model::value_type, Device>;
    Model* model;
    std::string file;

    [[nodiscard]] bool match(sd::Event event, const State&) const {
        return event == sd::Event::epoch_checkpoint || event == sd::Event::fit_end;
    }
    void apply(sd::Event, State& state, sd::Logger&) const {
        struct Averages {
            State& state;
            explicit Averages(State& of) : state(of) { sd::WeightAveraging::swap(state); }
            Averages(const Averages&) = delete;
            Averages& operator=(const Averages&) = delete;
            ~Averages() { sd::WeightAveraging::swap(state); }
        };
        const Averages in_place_of_weights(state);
        sd::save_weights(*model, file);
    }
};

/// Makes the model stochastic at its full rates and prints what is to be expected of it.
template <class Model>
void print_expectations(Model& model, const sd::StochasticDepthOptions& options, Index batch_size) {
    const auto handler = sd::set_warning_handler(nullptr);  // the description has the warnings
    sd::apply_stochastic_depth(model, options);
    sd::set_warning_handler(handler);
    std::cout << sd::describe(model, batch_size);
}

/// The algorithms that the settings ask for.
template <class Model>
auto make_algorithms(Model& model, const Settings& settings, bool is_first_rank) {
    std::vector<sd::Algorithm<typename Model::value_type, Device>> algorithms;
    if (settings.stochastic_method != "none") {
        const bool is_subset = settings.stochastic_method == "subset";
        const sd::StochasticDepthOptions options{
            .target_layer_name = model.layer_name(),
            .stochastic_method = sd::parse<sd::StochasticMethod>(is_subset ? "sample" : settings.stochastic_method),
            .policy = is_subset ? "subset" : "",
            .drop_rate = settings.drop_rate,
            .drop_distribution = sd::parse<sd::DropDistribution>(settings.drop_distribution),
            .use_same_gpu_seed = settings.use_same_gpu_seed,
            .compute = sd::parse<sd::Compute>(settings.compute),
            .scaling = sd::parse<sd::Scaling>(settings.scaling)};
        print_expectations(model, options, settings.batch_size);
        algorithms.emplace_back(sd::StochasticDepth(options, settings.drop_warmup));
    }
    if (settings.label_smoothing > 0) algorithms.emplace_back(sd::LabelSmoothing(settings.label_smoothing));
    if (settings.mixup > 0 && settings.cutmix > 0) {
        algorithms.emplace_back(sd::MixupOrCutMix(sd::Mixup(settings.mixup), sd::CutMix(settings.cutmix)));
    } else if (settings.mixup > 0) {
        algorithms.emplace_back(sd::Mixup(settings.mixup));
    } else if (settings.cutmix > 0) {
        algorithms.emplace_back(sd::CutMix(settings.cutmix));
    }
    if (settings.ema > 0) algorithms.emplace_back(sd::WeightAveraging({.decay = settings.ema}));
    if (!settings.save.empty() && is_first_rank) algorithms.emplace_back(WeightsWriter<Model>{&model, settings.save});
    return algorithms;
}

/// The optimizers to choose from.
template <class A>
using AnyOptimizer =
    std::variant<sd::Sgd<A, Device>, sd::AdamW<A, Device>, sd::Rmsprop<A, Device>, sd::RmspropTf<A, Device>>;

/// The optimizer that the settings ask for, of all parameters of the model.
template <class Model>
auto make_optimizer(Model& model, const Settings& settings) {
    std::vector<sd::ParameterRule> rules;
    for (const std::string& which : settings.no_decay) {
        sd::ParameterRule rule{.weight_decay = 0};
        if (which == "norms_and_biases") {
            rule.match_rank_at_most = 1;
        } else {
            rule.match = which;
        }
        rules.push_back(std::move(rule));
    }
    using A = sd::accumulate_t<typename Model::value_type>;
    const auto groups = sd::parameter_groups(model, rules);
    const auto make = [&]<class Optimizer>(std::type_identity<Optimizer>, typename Optimizer::Options options) {
        const auto set = [](double& option, const std::optional<double>& given) { option = given.value_or(option); };
        set(options.learning_rate, settings.learning_rate);
        set(options.weight_decay, settings.weight_decay);
        if constexpr (requires { options.momentum; }) set(options.momentum, settings.momentum);
        if constexpr (requires { options.alpha; }) set(options.alpha, settings.alpha);
        if constexpr (requires { options.eps; }) set(options.eps, settings.eps);
        return AnyOptimizer<A>(Optimizer(groups, options));
    };
    using std::type_identity;
    if (settings.optimizer == "adamw") return make(type_identity<sd::AdamW<A, Device>>(), {});
    if (settings.optimizer == "rmsprop") {
        return make(type_identity<sd::Rmsprop<A, Device>>(), {.alpha = 0.9, .momentum = 0.9, .weight_decay = 1e-4});
    }
    if (settings.optimizer == "rmsprop_tf") {
        return make(type_identity<sd::RmspropTf<A, Device>>(), {.weight_decay = 1e-4});
    }
    return make(type_identity<sd::Sgd<A, Device>>(), {.momentum = 0.9, .weight_decay = 1e-4});
}

/// Loads the weights to start from and prints what was done with them.
template <class Model>
void load_weights(Model& model, const Settings& settings) {
    const std::string classifier = model.classifier_prefix();
    sd::LoadOptions options;
    if (settings.reset_classifier) options.skip.push_back(classifier);
    try {
        const sd::LoadReport report = sd::load_weights(model, settings.weights, options);
        std::cout << settings.weights << ": " << report << std::flush;
    } catch (const sd::StateDictMismatch& error) {
        const auto is_classifier = [&](const std::string& name) { return name.starts_with(classifier); };
        if (!std::all_of(error.names().begin(), error.names().end(), is_classifier)) throw;
        throw std::runtime_error(std::string(error.what()) +
                                 "\nother classes? --reset-classifier starts the last layer anew");
    }
}

/// Freezes what the settings name. Throws std::invalid_argument for a start of no name, or if nothing is left to train.
template <class Model>
void freeze(Model& model, const Settings& settings) {
    for (const std::string& prefix : settings.freeze) sd::freeze(model, prefix);
    if (!sd::has_trainable_parameters(model)) sd::refuse("--freeze", "parameters left to train", 0, "1 or more");
}

/// Warns of options that were given and change nothing beside the others.
void warn_of_idle_options(const CLI::App& app, const Settings& settings) {
    const auto expect = [&](bool has_effect, const char* name, const char* with) {
        const CLI::Option& option = *app.get_option(name);
        // A file of settings has the defaults too.
        if (has_effect || option.count() == 0 || option.as<std::string>() == option.get_default_str()) return;
        sd::warn(sd::text("train: ", name, ": got ", option.as<std::string>(), ", without effect; expected ", with));
    };
    const bool drops = settings.stochastic_method != "none";
    for (const char* name : {"--drop-rate", "--drop-distribution", "--drop-warmup"}) {
        expect(drops, name, "--stochastic-method block, sample or subset");
    }
    expect(drops && settings.stochastic_method != "subset", "--scaling", "--stochastic-method block or sample");
    expect(settings.optimizer != "adamw", "--momentum", "--optimizer sgd, rmsprop or rmsprop_tf");
    expect(settings.optimizer.starts_with("rmsprop"), "--alpha", "--optimizer rmsprop or rmsprop_tf");
    expect(settings.optimizer != "sgd", "--eps", "--optimizer adamw, rmsprop or rmsprop_tf");
    expect(settings.stochastic_method == "sample", "--compute", "--stochastic-method sample");
    expect(settings.data.starts_with("folder:"), "--image-size", "--data folder:DIR");
    expect(settings.ranks > 1, "--sync-batch-norm", "--ranks 2 or more");
    expect(settings.ranks > 1, "--use-same-gpu-seed", "--ranks 2 or more");
}

/// Where the settings of a run stand: beside its checkpoints and beside each file of its log.
std::set<std::filesystem::path> settings_files(const Settings& settings) {
    std::set<std::filesystem::path> files;
    if (!settings.checkpoint_dir.empty()) {
        files.insert(std::filesystem::path(settings.checkpoint_dir) / "settings.toml");
    }
    for (const tools::LogName& name : tools::parse_logs(settings.log)) {
        if (const auto file = tools::settings_beside(name)) files.insert(*file);
    }
    return files;
}

/// What the trainer does not know of a run. Of the data set the kind alone: its folder may have moved.
sd::SettingTexts checkpoint_settings(const Settings& settings) {
    return {{"model", settings.model},
            {"data", settings.data.substr(0, settings.data.find(':'))},
            {"image_size", sd::text(settings.image_size)},
            {"precision", settings.precision}};
}

/// Goes on from the newest checkpoint and says so.
template <class Trainer>
void resume(sd::CheckpointSaver<Trainer>& saver, const Trainer& trainer, const Settings& settings) {
    const auto found = saver.resume();
    if (!found) {
        std::cout << "no checkpoint in " << settings.checkpoint_dir << ": the run starts" << std::endl;
        return;
    }
    for (const auto& [path, reason] : found->skipped) std::cerr << "train: skipped: " << reason << '\n';
    const sd::Timestamp& timestamp = trainer.state().timestamp;
    std::cout << "resumed from " << found->path.string() << ": " << timestamp.epoch << " epochs, " << timestamp.batch
              << " batches done" << std::endl;
}

template <class Model>
int train(Model& model, const tools::Data& data, const Settings& settings, const std::string& settings_text,
          sd::Communicator& ranks) {
    const bool is_first_rank = ranks.rank() == 0;
    if (!settings.save.empty() && is_first_rank) sd::expect_writable(settings.save);
    freeze(model, settings);
    using T = typename Model::value_type;
    auto any_optimizer = make_optimizer(model, settings);
    auto optimizer =
        std::visit([](auto& chosen) { return sd::OptimizerRef<sd::accumulate_t<T>, Device>(chosen); }, any_optimizer);
    const sd::PrefetchOptions prefetch{.workers = settings.workers};
    using Loader = sd::DataLoader<tools::AnyDataset, tools::loaded_t<T>>;
    const sd::PrefetchLoader train_loader(Loader(data.train, {.batch_size = settings.batch_size,
                                                              .shuffle = true,
                                                              .seed = settings.seed,
                                                              .augmentation = data.augmentation,
                                                              .rank = ranks.rank(),
                                                              .ranks = ranks.size()}),
                                          prefetch);
    const sd::PrefetchLoader test_loader(
        Loader(data.test,
               {.batch_size = settings.batch_size, .shuffle = false, .rank = ranks.rank(), .ranks = ranks.size()}),
        prefetch);
    std::cout << settings.model << ", " << model.parameter_count() << " parameters, " << model.blocks().size()
              << " blocks, " << data.train->size() << " training images, " << sd::num_threads() << " threads";
    if (ranks.size() > 1) std::cout << " on each of " << ranks.size() << " ranks";
    std::cout << std::endl;
    auto algorithms = make_algorithms(model, settings, is_first_rank);
    // After the model was made stochastic: weights that a factor was folded into become those that were trained.
    if (!settings.weights.empty() && is_first_rank) load_weights(model, settings);
    tools::Logs logs;
    if (is_first_rank) {
        logs = tools::open_logs(settings.log, ranks.size() == 1);
        logs.insert(logs.begin(), std::make_shared<tools::SettingsWriter>(settings_text, settings_files(settings)));
    }
    sd::Trainer trainer(model, optimizer, tools::on_device<T>(train_loader), tools::on_device<T>(test_loader),
                        {.max_duration = settings.duration,
                         .algorithms = std::move(algorithms),
                         .seed = settings.seed,
                         .learning_rate = settings.lr_schedule,
                         .microbatches = settings.grad_accum,
                         .eval_interval = settings.eval_interval,
                         .loggers = std::move(logs),
                         .communicator = &ranks,
                         .data_parallel = {.synchronised_batch_norm = settings.sync_batch_norm},
                         .step_graph = settings.step_graph});
    std::optional<sd::CheckpointSaver<decltype(trainer)>> saver;
    if (!settings.checkpoint_dir.empty()) {
        saver.emplace(trainer, sd::CheckpointOptions{.directory = settings.checkpoint_dir,
                                                     .interval = settings.checkpoint_interval,
                                                     .keep = settings.keep,
                                                     .settings = checkpoint_settings(settings)});
        if (settings.resume) resume(*saver, trainer, settings);
    }
    const tools::StopOnSignal stop(trainer);
    return trainer.fit() == sd::FitEnd::stopped ? stop.status(ranks) : 0;
}

/// Throws std::runtime_error on a rank that has other lines than rank 0, whose machine has files of its own.
void expect_as_on_first_rank(const std::string& what, const std::string& own, sd::Communicator& ranks) {
    std::string first = own;
    sd::broadcast_text(first, ranks);
    if (own == first) return;
    std::istringstream own_lines(own), first_lines(first);
    std::string own_line, first_line;
    while (std::getline(own_lines, own_line) && std::getline(first_lines, first_line) && own_line == first_line) {
    }
    throw std::runtime_error(sd::text(what, ": got ", own_line, ", expected ", first_line, ", as rank 0 has"));
}

/// The first rank that has something to say, if one has.
std::optional<Index> first_rank_with(const std::string& words, sd::Communicator& ranks) {
    const char own = words.empty() ? 0 : 1;
    std::vector<char> all(static_cast<std::size_t>(ranks.size()));
    ranks.all_gather(std::span(&own, 1), std::span(all));
    const auto found = std::find(all.begin(), all.end(), 1);
    if (found == all.end()) return std::nullopt;
    return found - all.begin();
}

/// The words of the command line, behind those of the file that --config names.
std::vector<std::string> all_words(int argc, char** argv) {
    const std::vector<std::string> given(argv + 1, argv + argc);
    const auto add = [settings = std::make_shared<Settings>()](CLI::App& app) { add_options(app, *settings); };
    CLI::App alone;
    std::string file;
    alone.allow_extras()->set_help_flag();
    alone.add_option("--config", file);
    tools::parse_words(alone, given);
    if (file.empty()) return given;
    std::vector<std::string> words = tools::read_settings(file, given, add);
    words.insert(words.end(), given.begin(), given.end());
    return words;
}

int run(int argc, char** argv, sd::Communicator& ranks) {
    CLI::App app{"Trains a residual network with stochastic depth."};
    app.name("train");
    Settings settings;
    add_options(app, settings);
    std::string refusal;
    try {
        tools::parse_words(app, all_words(argc, argv));
    } catch (const CLI::CallForHelp& help) {
        return app.exit(help);
    } catch (const std::runtime_error& error) {  // CLI::ParseError is one
        refusal = error.what();
    }
    // each rank reads the file of --config on its machine: none may go on alone
    if (const auto refusing = first_rank_with(refusal, ranks)) {
        if (*refusing == ranks.rank()) std::cerr << "train: " << refusal << '\n';
        return 2;
    }
    if (settings.ranks != ranks.size()) {
        std::cerr
            << "train: --ranks: got " << settings.ranks << ", expected " << ranks.size()
            << ", the processes that there are; ./run train --ranks N starts N, if MPI was there when it was built\n";
        return 2;
    }
    try {
        warn_of_idle_options(app, settings);
        if (settings.threads > 0) sd::set_num_threads(settings.threads);
        tools::Data data = tools::load_data(settings.data, settings.seed, settings.image_size);
        const std::string text = tools::settings_text(app);
        expect_as_on_first_rank("settings", text, ranks);
        expect_as_on_first_rank("--data",
                                sd::text(data.train->size(), " training and ", data.test->size(), " test images of ",
                                         data.train->num_classes(), " classes"),
                                ranks);
        data.augmentation.random_erasing = settings.random_erasing;
        const sd::ResNetOptions options{.num_classes = data.train->num_classes(),
                                        .seed = settings.seed,
                                        .in_channels = data.train->image_shape()[2]};
        const auto fit = [&](auto model) { return train(model, data, settings, text, ranks); };
#if defined(SD_TOOLS_CUDA)
        if (settings.precision == "tf32") sd::set_float_math(sd::FloatMath::tf32);
#endif
        return settings.precision == "bf16" ? fit(tools::make_network<sd::bfloat16, Device>(settings.model, options))
                                            : fit(tools::make_network<float, Device>(settings.model, options));
    } catch (const std::exception& error) {
        if (ranks.size() > 1) throw;  // which ends all ranks
        std::cerr << "train: " << error.what() << '\n';
        return dynamic_cast<const std::invalid_argument*>(&error) != nullptr ? 2 : 1;
    }
}

}  // namespace

int main(int argc, char** argv) {
    tools::end_on_signals_as_first_process();
    return tools::on_ranks(argc, argv, [&](sd::Communicator& ranks) { return run(argc, argv, ranks); });
}
