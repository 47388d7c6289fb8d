// A network that trains in milliseconds and has no batch norm, with data for it.
#pragma once

#include "messages.hpp"

#include "sd/training.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sd_test {

/// F(x) = conv(relu(x))
template <class T>
class ConvBranch {
public:
    using value_type = T;
    static constexpr std::string_view layer_name = "ConvBranch";

    ConvBranch(sd::Index channels, sd::Initializer& initializer)
        : conv_(channels, channels, 3, {.padding = 1}, initializer) {}
    sd::Tensor<T> forward(const sd::Tensor<T>& x, const sd::Context& context) {
        return conv_.forward(relu_.forward(x, context), context);
    }
    sd::Tensor<T> backward(const sd::Tensor<T>& dy) { return relu_.backward(conv_.backward(dy)); }
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("conv", conv_);
    }

private:
    sd::Relu<T> relu_;
    sd::Conv2d<T> conv_;
};

/// conv, three residual blocks, mean over pixels, classifier of four classes.
template <class T>
class SmallNetwork {
public:
    using value_type = T;
    using device_type = sd::Cpu;
    using Block = sd::StochasticResidual<ConvBranch<T>>;

    SmallNetwork() : SmallNetwork(sd::Initializer(1)) {}

    sd::Tensor<T> forward(const sd::Tensor<T>& x, const sd::Context& context) {
        sd::Tensor<T> y = conv_.forward(x, context);
        for (Block& block : blocks_) y = block.forward(y, context);
        return fc_.forward(pool_.forward(y, context), context);
    }
    void backward(const sd::Tensor<T>& dlogits) {
        sd::Tensor<T> dy = pool_.backward(fc_.backward(dlogits));
        for (auto block = blocks_.rbegin(); block != blocks_.rend(); ++block) dy = block->backward(dy);
        (void)conv_.backward(dy);
    }
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("conv", conv_);
        for (std::size_t i = 0; i < blocks_.size(); ++i) visitor(sd::text("blocks.", i), blocks_[i]);
        visitor("fc", fc_);
    }

    std::vector<Block>& blocks() { return blocks_; }
    sd::ParameterList<T> parameters() {
        sd::ParameterList<T> list;
        sd::for_each_parameter(*this, [&](const std::string&, auto& parameter) { list.push_back(parameter); });
        return list;
    }
    /// All parameters' numbers, in a row.
    std::vector<T> numbers() {
        std::vector<T> all;
        for (const auto& parameter : parameters()) {
            all.insert(all.end(), parameter->value.begin(), parameter->value.end());
        }
        return all;
    }

private:
    explicit SmallNetwork(sd::Initializer initializer)
        : conv_(3, 6, 3, {.padding = 1}, initializer), fc_(6, 4, initializer) {
        for (int i = 0; i < 3; ++i) blocks_.emplace_back(ConvBranch<T>(6, initializer));
        sd::name_parameters(*this);
    }

    sd::Conv2d<T> conv_;
    std::vector<Block> blocks_;
    sd::GlobalAvgPool<T> pool_;
    sd::Linear<T> fc_;
};

/// Images of 8 x 8 in four classes.
inline std::shared_ptr<const sd::InMemoryDataset> small_images(sd::Index count) {
    return std::make_shared<const sd::InMemoryDataset>(sd::synthetic_images(count, 4, 8, 8, 5));
}

/// Shuffled batches of them, four samples each.
template <class T>
sd::DataLoader<sd::InMemoryDataset, T> small_loader(sd::Index count, sd::Index batch_size = 4) {
    return sd::DataLoader<sd::InMemoryDataset, T>(small_images(count), {.batch_size = batch_size, .seed = 9});
}

/// Calls a function at one event; a user's algorithm for models of doubles.
struct At {
    sd::Event event;
    std::function<void(sd::State<double>&)> use;

    bool match(sd::Event now, const sd::State<double>&) const { return now == event; }
    void apply(sd::Event, sd::State<double>& state, sd::Logger&) { use(state); }
};

/// Runs the small network on three batches an epoch with these options, from that timestamp on.
inline void run_small_network(sd::TrainerOptions<double> options, const sd::Timestamp& from = {}) {
    const Warnings fewer_than_8_blocks;
    SmallNetwork<double> model;
    sd::Sgd<double> optimizer(model.parameters(), {.learning_rate = 0.01});
    sd::Trainer trainer(model, optimizer, small_loader<double>(12), std::move(options));
    trainer.state().timestamp = from;
    trainer.fit();
}

/// Stochastic depth of its blocks.
inline sd::StochasticDepthOptions small_depth(sd::StochasticMethod method, sd::DropDistribution distribution,
                                              double drop_rate) {
    return {.target_layer_name = "ConvBranch",
            .stochastic_method = method,
            .drop_rate = drop_rate,
            .drop_distribution = distribution};
}

/// What is logged, as text: the event, then a name a metric.
struct RecordingDestination : sd::LogDestination {
    struct Record {
        sd::LogEvent event;
        sd::Timestamp timestamp;
        std::vector<sd::Metric> metrics;
    };
    std::vector<Record> records;

    void start(const sd::RunLength&, const sd::LogRecord& record) override { write(record); }
    void write(const sd::LogRecord& record) override {
        records.push_back({record.event, record.timestamp, {record.metrics.begin(), record.metrics.end()}});
    }

    /// The values that a name had, one after the other.
    template <class Value>
    std::vector<Value> values(std::string_view name) const {
        std::vector<Value> found;
        for (const Record& record : records) {
            for (const sd::Metric& metric : record.metrics) {
                if (metric.name == name) found.push_back(std::get<Value>(metric.value));
            }
        }
        return found;
    }
};

}  // namespace sd_test
