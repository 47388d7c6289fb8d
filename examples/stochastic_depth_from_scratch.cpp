// Stochastic depth from scratch: the method, forward and backward, with the standard library alone.
//
//     g++ -std=c++20 -O2 stochastic_depth_from_scratch.cpp && ./a.out
//
// A residual block adds to its input x what a branch F makes of it. Stochastic depth leaves the branch out at random
// in training, with a drop rate p that grows with depth. In evaluation every branch runs, scaled by its probability to
// be kept. p = 0 is the plain network.
//
//     block-wise, kept        y = relu(x + F(x))             one draw for the whole batch
//     block-wise, dropped     y = x                          F is not computed
//     sample-wise             y_n = relu(x_n + m_n F(x)_n)   a draw for each sample: m_n is 1 with probability 1 - p
//     evaluation, both        y = relu(x + (1 - p) F(x))
//
// G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, "Deep networks with stochastic depth", ECCV 2016.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <numbers>
#include <utility>
#include <vector>

namespace from_scratch {

// A tensor is its elements in row-major order: a batch of N samples is (N, width), a weight (out, in).
using Tensor = std::vector<double>;

// ---- Random numbers: a pure function, so there is no state to keep, share or restore.

using Words = std::array<std::uint32_t, 4>;

// Philox4x32-10: the four random words of a counter and a key.
// J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
inline Words philox(Words counter, std::array<std::uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0];
        const std::uint64_t b = std::uint64_t{0xCD9E8D57} * counter[2];
        counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
                   static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
        key[0] += 0x9E3779B9;
        key[1] += 0xBB67AE85;
    }
    return counter;
}

// What numbers are drawn for. Streams of one seed are independent of each other.
enum Stream : std::uint32_t { mask_stream = 0, weight_stream = 3, data_stream = 4 };

inline Words random_words(std::uint64_t seed, Stream stream, std::uint64_t step, std::uint32_t block,
                          std::uint32_t index) {
    const auto step_high = static_cast<std::uint32_t>(step >> 32) << 8;
    return philox({index, block, static_cast<std::uint32_t>(step), step_high | stream},
                  {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
}

inline double uniform(std::uint32_t word) { return word * 0x1p-32; }  // in [0, 1)

// ---- Masks and rates

enum class Method { block, sample };

// What a pass knows of itself. Masks depend on nothing else, so a resumed run draws those that it would have drawn.
struct Context {
    bool training;
    Method method;
    std::uint64_t seed, step;
};

using Mask = std::vector<std::uint8_t>;  // for each sample 1 if it keeps the branch, else 0

// True with probability 1 - p, to 24 bits: always for p = 0, never for p = 1.
inline bool keeps_branch(double p, std::uint64_t seed, std::uint64_t step, std::uint32_t block, std::uint32_t index) {
    return (random_words(seed, mask_stream, step, block, index)[0] >> 8) >= std::ceil(p * 0x1p24);
}

inline Mask draw(double p, std::uint32_t block, std::size_t samples, const Context& context) {
    Mask mask(samples, 1);
    if (!context.training) return mask;
    for (std::uint32_t n = 0; n < samples; ++n) {
        const std::uint32_t index = context.method == Method::sample ? n : 0;  // block-wise, all samples share one draw
        mask[n] = keeps_branch(p, context.seed, context.step, block, index) ? 1 : 0;
    }
    return mask;
}

// Rates grow with depth, from 0 at the first block to r at the last: all later layers need what the first ones compute.
inline double drop_rate_of_block(double r, std::uint32_t i, std::uint32_t blocks) {
    return blocks == 1 ? r : r * i / (blocks - 1.0);
}

// ---- The join of shortcut and branch

// y_n = relu(x_n + scale F_n) if the mask keeps sample n, else relu(x_n). The mask selects, it is no factor: a dropped
// sample takes nothing of F, even where F is infinite or not a number.
inline Tensor join_forward(const Tensor& x, const Tensor& f, const Mask& mask, double scale) {
    const std::size_t width = x.size() / mask.size();
    Tensor y(x.size());
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = std::max(mask[i / width] ? x[i] + scale * f[i] : x[i], 0.0);
    return y;
}

// With g = dy where y > 0, else 0: dx_n = g_n and dF_n = scale g_n if the mask keeps sample n, else 0.
inline std::pair<Tensor, Tensor> join_backward(const Tensor& dy, const Tensor& y, const Mask& mask, double scale) {
    const std::size_t width = y.size() / mask.size();
    Tensor dx(y.size()), df(y.size());
    for (std::size_t i = 0; i < y.size(); ++i) {
        dx[i] = y[i] > 0 ? dy[i] : 0;
        df[i] = mask[i / width] ? scale * dx[i] : 0;
    }
    return {dx, df};
}

// ---- Layers

struct Parameter {
    Tensor value, grad = Tensor(value.size()), velocity = Tensor(value.size());
    bool has_grad = false;  // whether its layer took part in the pass
};

// y = x W^T + b with x (N, in), W (out, in), b (out), y (N, out). At first W is U(-1/sqrt(in), 1/sqrt(in)), b 0.
struct Linear {
    std::size_t in, out;
    Parameter weight{Tensor(out * in)}, bias{Tensor(out)};
    Tensor x = {};

    Linear(std::size_t in_, std::size_t out_, std::uint64_t seed, std::uint32_t layer) : in(in_), out(out_) {
        const double bound = 1 / std::sqrt(static_cast<double>(in));
        std::uint32_t index = 0;
        for (double& w : weight.value) {
            w = bound * (2 * uniform(random_words(seed, weight_stream, 0, layer, index++)[0]) - 1);
        }
    }
    Tensor forward(const Tensor& input) {
        x = input;
        Tensor y(x.size() / in * out);
        for (std::size_t i = 0; i < y.size(); ++i) {
            const std::size_t n = i / out, o = i % out;
            y[i] = bias.value[o];
            for (std::size_t k = 0; k < in; ++k) y[i] += x[n * in + k] * weight.value[o * in + k];
        }
        return y;
    }
    // dx = dy W. Adds dW = dy^T x and db, the sum of dy over samples.
    Tensor backward(const Tensor& dy) {
        Tensor dx(x.size());
        for (std::size_t i = 0; i < dy.size(); ++i) {
            const std::size_t n = i / out, o = i % out;
            bias.grad[o] += dy[i];
            for (std::size_t k = 0; k < in; ++k) {
                weight.grad[o * in + k] += dy[i] * x[n * in + k];
                dx[n * in + k] += dy[i] * weight.value[o * in + k];
            }
        }
        weight.has_grad = bias.has_grad = true;
        return dx;
    }
};

// F(x) = W2 relu(W1 x + b1) + b2, as wide as x. In a network for images these are convolutions and batch norms.
struct Branch {
    Linear first, second;
    Tensor hidden = {};
    Tensor forward(const Tensor& x) {
        hidden = first.forward(x);
        for (double& h : hidden) h = std::max(h, 0.0);
        return second.forward(hidden);
    }
    Tensor backward(const Tensor& dy) {
        Tensor dhidden = second.backward(dy);
        for (std::size_t i = 0; i < dhidden.size(); ++i) dhidden[i] = hidden[i] > 0 ? dhidden[i] : 0;
        return first.backward(dhidden);
    }
};

// ---- The residual block with stochastic depth

struct Block {
    Branch branch;
    double p;              // its drop rate
    std::uint32_t number;  // its place in the network: blocks of different numbers draw independent masks
    bool runs = true;
    double scale = 1;
    Mask mask = {};
    Tensor y = {};

    Tensor forward(const Tensor& x, const Context& context) {
        mask = draw(p, number, x.size() / branch.first.in, context);  // draw
        runs = context.method == Method::sample || mask[0] == 1;
        if (!runs) return x;
        scale = context.training ? 1 : 1 - p;
        const Tensor f = branch.forward(x);          // run
        return y = join_forward(x, f, mask, scale);  // join
    }

    // A branch that did not run gives its parameters no gradient, which is not a gradient of zeros: see step().
    Tensor backward(const Tensor& dy) {
        if (!runs) return dy;
        auto [dx, df] = join_backward(dy, y, mask, scale);                  // split
        const Tensor through_f = branch.backward(df);                       // run back
        for (std::size_t i = 0; i < dx.size(); ++i) dx[i] += through_f[i];  // add
        return dx;
    }
};

// ---- A network, its loss and its training

struct Network {
    Linear stem, head;
    std::vector<Block> blocks;

    Network(std::size_t width, std::uint32_t count, double drop_rate, std::uint64_t seed)
        : stem(2, width, seed, 0), head(width, 1, seed, 1) {
        for (std::uint32_t i = 0; i < count; ++i) {
            Branch branch{Linear(width, width, seed, 2 * i + 2), Linear(width, width, seed, 2 * i + 3)};
            blocks.push_back({std::move(branch), drop_rate_of_block(drop_rate, i, count), i});
        }
    }

    Tensor forward(const Tensor& points, const Context& context) {
        Tensor x = stem.forward(points);
        for (Block& block : blocks) x = block.forward(x, context);
        return head.forward(x);
    }
    void backward(const Tensor& dz) {
        Tensor d = head.backward(dz);
        for (std::size_t i = blocks.size(); i-- > 0;) d = blocks[i].backward(d);
        stem.backward(d);
    }

    // Momentum: v = 0.9 v + g, w = w - rate v. A parameter without a gradient stays as it is, its velocity too.
    void step(double rate) {
        std::vector<Linear*> layers{&stem, &head};
        for (Block& block : blocks) layers.insert(layers.end(), {&block.branch.first, &block.branch.second});
        for (Linear* layer : layers) {
            for (Parameter* w : {&layer->weight, &layer->bias}) {
                for (std::size_t i = 0; w->has_grad && i < w->value.size(); ++i) {
                    w->velocity[i] = 0.9 * w->velocity[i] + w->grad[i];
                    w->value[i] -= rate * w->velocity[i];
                    w->grad[i] = 0;
                }
                w->has_grad = false;
            }
        }
    }
};

// Points (N, 2) of two spirals with a little noise: even samples on the one, odd ones on the other, half a turn away.
inline Tensor spirals(std::uint64_t seed, std::uint64_t step, std::uint32_t samples) {
    Tensor points;
    for (std::uint32_t n = 0; n < samples; ++n) {
        const Words words = random_words(seed, data_stream, step, 0, n);
        const double radius = uniform(words[0]);
        const double angle = std::numbers::pi * (2.5 * radius + n % 2);
        points.push_back(radius * std::cos(angle) + 0.1 * (uniform(words[1]) - 0.5));
        points.push_back(radius * std::sin(angle) + 0.1 * (uniform(words[2]) - 0.5));
    }
    return points;
}

// Logistic loss with label 1 for even samples, -1 for odd ones: the mean of log(1 + exp(-label z)), its gradient by z.
struct Score {
    double loss = 0, accuracy = 0;
    Tensor dz = {};
    explicit Score(const Tensor& z) {
        const auto samples = static_cast<double>(z.size());
        for (std::size_t n = 0; n < z.size(); ++n) {
            const double label = n % 2 == 0 ? 1 : -1;
            loss += std::log1p(std::exp(-label * z[n])) / samples;
            accuracy += (label * z[n] > 0 ? 1 : 0) / samples;
            dz.push_back(-label / (1 + std::exp(label * z[n])) / samples);
        }
    }
};

// Trains a network, prints its loss, and returns its accuracy on points that it has not seen.
inline double train(const char* name, Method method, double drop_rate) {
    constexpr std::uint64_t seed = 42, steps = 1000;
    Network network(16, 8, drop_rate, seed);
    for (std::uint64_t step = 0; step < steps; ++step) {
        const Score score(network.forward(spirals(seed, step, 64), {true, method, seed, step}));
        if (step % 200 == 0) std::cout << name << ", step " << step << ": loss " << score.loss << '\n';
        network.backward(score.dz);
        network.step(0.01);
    }
    const Score score(network.forward(spirals(seed, steps, 1000), {false, method, seed, steps}));
    std::cout << name << ", unseen points: loss " << score.loss << ", accuracy " << score.accuracy << '\n';
    return score.accuracy;
}

}  // namespace from_scratch

#if !defined(FROM_SCRATCH_WITHOUT_MAIN)
int main() {
    using from_scratch::Method, from_scratch::train;
    const double worst = std::min({train("plain", Method::block, 0), train("block-wise", Method::block, 0.3),
                                   train("sample-wise", Method::sample, 0.3)});
    return worst > 0.95 ? 0 : 1;
}
#endif
