// Training steps: zero_grad, forward, cross entropy, backward, SGD, on a batch that is in memory already.
#include "benchmarks.hpp"
#include "masks.hpp"
#include "measure.hpp"
#include "networks.hpp"

#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bench {

namespace {

/// How a network is trained, and the name of that in benchmarks.
struct Method {
    std::string name;
    sd::StochasticDepthOptions options;
};

std::vector<Method> methods() {
    std::vector<Method> all = {{"none", {}}};
    for (const auto& [rate, digits] : {std::pair{0.1, "0.1"}, std::pair{0.2, "0.2"}, std::pair{0.5, "0.5"}}) {
        using sd::StochasticMethod;
        all.push_back(
            {sd::text("sample@", digits),
             {.stochastic_method = StochasticMethod::sample, .drop_rate = rate, .compute = sd::Compute::all}});
        all.push_back({sd::text("block@", digits), {.stochastic_method = StochasticMethod::block, .drop_rate = rate}});
        all.push_back({sd::text("survivors@", digits),
                       {.stochastic_method = StochasticMethod::sample,
                        .drop_rate = rate,
                        .drop_distribution = sd::DropDistribution::uniform,
                        .compute = sd::Compute::survivors}});
    }
    return all;
}

template <class Member>
inline constexpr bool is_squeeze_excitation = false;
template <class T, class Device, sd::Activation activation, sd::Activation scale>
inline constexpr bool is_squeeze_excitation<sd::SqueezeExcitation<T, Device, activation, scale>> = true;

/// Adds up what a branch's convolutions cost a sample, as multiply-adds over the output pixels of the network's stem.
/// Blocks are visited in forward order: a stride makes the image smaller for all that follow.
struct BranchCost {
    double& area;
    double cost = 0;
    std::string gate = {};  // what names of squeeze-and-excitation's own members begin with, which see one pixel

    template <class Member>
    void operator()(const std::string& name, Member& member) {
        if (!gate.empty() && name.starts_with(gate)) return;
        if constexpr (is_squeeze_excitation<Member>) gate = name + '.';
        if constexpr (requires { member.options().stride; }) {
            const auto stride = static_cast<double>(member.options().stride);
            area /= stride * stride;
        }
        if constexpr (requires { member.weight()->value; }) {
            const auto& weight = member.weight()->value;
            if (weight.rank() > 1) cost += area * static_cast<double>(weight.size());
        }
    }
};

/// The costs of all blocks. Convolutions between blocks make the image smaller for the blocks behind them.
template <class Model>
std::vector<BlockCost> block_costs(Model& model) {
    std::vector<BlockCost> costs;
    double area = 1;
    std::string inside;  // what names of the block's own members begin with
    sd::for_each_member(model, [&]<class Member>(const std::string& name, Member& member) {
        if constexpr (sd::detail::is_residual_block<Member>) {
            BranchCost branch{area};
            sd::for_each_member(member.branch(), branch);
            costs.push_back({member.policy().drop_rate(), branch.cost});
            inside = name + '.';
        } else if (!costs.empty() && !name.starts_with(inside)) {
            BranchCost{area}("", member);
        }
    });
    return costs;
}

template <class T, class Model>
class TrainStep final : public Workload {
public:
    TrainStep(Model model, const NetworkCase& network, const Method& method)
        : model_(std::move(model)),
          optimizer_(model_.parameters(), {.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 1e-4}),
          images_(filled<T>(network.input_shape())) {
        for (Index n = 0; n < network.batch; ++n) labels_.push_back(n % network.classes);
        if (method.name == "none") return;
        sd::StochasticDepthOptions options = method.options;
        options.target_layer_name = tools::layer_name_of<Model>();
        sd::apply_stochastic_depth(model_, options);
        masks_ = stratified_masks(block_costs(model_), network.batch,
                                  options.stochastic_method == sd::StochasticMethod::block);
    }

    void run() override {
        for (std::size_t i = 0; !masks_.empty() && i < model_.blocks().size(); ++i) {
            auto& block = model_.blocks()[i];
            if (block.has_shortcut()) block.set_mask(masks_[step_ % masks_.size()][i]);
        }
        const std::span<const Index> labels(labels_);
        optimizer_.zero_grad();
        const auto logits = model_.forward(images_, sd::Context::train({.step = step_, .seed = 0}));
        const float loss = sd::cross_entropy_forward(logits, labels, 0.0);
        if (!sd::is_finite(loss)) throw std::runtime_error("train_step: the loss is not finite");
        model_.backward(sd::cross_entropy_by_input(logits, labels, 0.0), sd::InputGradient::skipped);
        optimizer_.step();
        ++step_;
    }

    [[nodiscard]] Index cycle() const override { return masks_.empty() ? 1 : static_cast<Index>(masks_.size()); }
    [[nodiscard]] Index images() const override { return images_.extent(0); }

private:
    Model model_;
    sd::Sgd<sd::accumulate_t<T>> optimizer_;
    sd::Tensor<T> images_;
    std::vector<Index> labels_;
    MaskList masks_;  ///< empty: every block of every sample runs
    std::size_t step_ = 0;
};

}  // namespace

template <class T>
std::vector<NamedWorkload> train_steps() {
    std::vector<NamedWorkload> all;
    for (const NetworkCase& network : network_cases()) {
        for (const Method& method : methods()) {
            const auto make = [network, method]() -> std::unique_ptr<Workload> {
                const auto build = [&]<class Model>(Model& model) -> std::unique_ptr<Workload> {
                    return std::make_unique<TrainStep<T, Model>>(std::move(model), network, method);
                };
                return tools::with_network<T>(network.model, {.num_classes = network.classes}, build);
            };
            all.push_back(
                {sd::text(name_of<T>("train_step"), '/', network.model, '/', method.name, '/', network.extents()),
                 make});
        }
    }
    return all;
}

template std::vector<NamedWorkload> train_steps<float>();
template std::vector<NamedWorkload> train_steps<sd::bfloat16>();

}  // namespace bench
