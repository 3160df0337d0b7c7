// One frame of tracking by one block: see `track/update.rs`, whose steps and names these are. Tracks that do not depend on each
// other are done at once, births one after another by the first warp.
#include "assignment.cuh"
#include "boxes.cuh"
#include "motion.cuh"

constexpr int32_t LOST = 0, RELOCALIZING = 1, VISIBLE = 2;
constexpr float LONGEST_STEP_S = 1e6f;

// `TrackerConfig`.
struct TrackerConfig {
    uint32_t greedy, independent, class_must_agree, confirm_hits, confirm_window, forget_frames;
    float class_weight, bbox_weight, giou_weight;
    float max_cost, gate_distance, gate_growth_per_s, gate_giou, age_cost_per_s, unconfirmed_cost;
    float birth_score, duplicate_iou, relocalize_s, forget_s;
    float measurement_noise, acceleration_noise, nominal_dt_s, coast_s, score_gain;
};

struct TrackUpdateParams {
    const float* boxes;      // `[K, 4]`, cxcywh
    const float* scores;     // `[K]`
    const int32_t* classes;  // `[K]`
    const int32_t* count;
    const float* dt_s;
    const float* table_f32s;
    const int32_t* table_i32s;
    int32_t *track_ids, *confirmed, *visibility, *slots, *scene;
    float* next_f32s;
    int32_t* next_i32s;
    void* memory;  // working memory, or null: in shared memory
    TrackerConfig config;
    uint32_t most;      // K
    uint32_t capacity;  // slots of the table
};

// The table, as `track/table.rs` lays it out.
struct Table {
    float *scene_unseen_s, *boxes, *velocities, *scores, *votes, *unseen_s;
    int32_t *last_id, *scene_was_visible, *ids, *labels, *seen_bits, *hits, *misses, *confirmed, *visibility;

    DEVICE Table(float* f, int32_t* i, uint32_t n)
        : scene_unseen_s(f), boxes(f + 1), velocities(f + 1 + 4 * n), scores(f + 1 + 8 * n), votes(f + 1 + 9 * n),
          unseen_s(f + 1 + 10 * n), last_id(i), scene_was_visible(i + 1), ids(i + 2), labels(i + 2 + n),
          seen_bits(i + 2 + 2 * n), hits(i + 2 + 3 * n), misses(i + 2 + 4 * n), confirmed(i + 2 + 5 * n),
          visibility(i + 2 + 6 * n) {}
};

DEVICE bool is_box(const TrackUpdateParams& p, uint32_t k) {
    const Box b = box_at(p.boxes, k);
    for (int i = 0; i < 4; i++) {
        if (!is_finite(b.v[i])) return false;
    }
    return b.v[2] > 0.0f && b.v[3] > 0.0f && is_finite(p.scores[k]);
}

DEVICE float pair_cost(const TrackUpdateParams& p, const Table& t, uint32_t k, uint32_t slot) {
    const TrackerConfig& config = p.config;
    const bool same_class = p.classes[k] == t.labels[slot];
    if (config.class_must_agree != 0 && !same_class) return INFINITY;
    const Box detected = box_at(p.boxes, k), predicted = box_at(t.boxes, slot);
    const Overlap overlap = overlap_cxcywh(detected, predicted);
    const float distance = hypotf(sub(detected.v[0], predicted.v[0]), sub(detected.v[1], predicted.v[1]));
    const float unseen_s = fminf(t.unseen_s[slot], config.relocalize_s);
    const float gate = add(config.gate_distance, mul(config.gate_growth_per_s, unseen_s));
    if (!(distance <= gate && overlap.giou >= config.gate_giou)) return INFINITY;
    const float probability = same_class ? fminf(fmaxf(p.scores[k], 0.0f), 1.0f) : 0.0f;
    float cost = mul(config.class_weight, sub(1.0f, probability));
    cost = add(cost, mul(config.bbox_weight, l1_cxcywh(detected, predicted)));
    cost = add(cost, mul(config.giou_weight, sub(1.0f, overlap.giou)));
    cost = add(cost, mul(config.age_cost_per_s, unseen_s));
    return add(cost, t.confirmed[slot] != 0 ? 0.0f : config.unconfirmed_cost);
}

// Decides whether the track is confirmed, and tells the detection.
DEVICE void show(const TrackUpdateParams& p, const Table& t, uint32_t k, uint32_t slot) {
    const uint32_t wanted = p.config.confirm_window, frames = wanted < 1 ? 1 : wanted > 32 ? 32 : wanted;
    const uint32_t seen = uint32_t(t.seen_bits[slot]) & (0xffffffffu >> (32 - frames));
    if (uint32_t(__popc(seen)) >= p.config.confirm_hits) t.confirmed[slot] = 1;
    t.visibility[slot] = VISIBLE;
    p.track_ids[k] = t.ids[slot];
    p.confirmed[k] = t.confirmed[slot] != 0 ? 1 : 0;
    p.visibility[k] = VISIBLE;
    p.slots[k] = int32_t(slot);
}

DEVICE void take(const TrackUpdateParams& p, const Table& t, uint32_t k, uint32_t slot) {
    const float score = p.scores[k];
    const int32_t label = p.classes[k];
    correct(p.config, t.boxes + 4 * slot, t.velocities + 4 * slot, box_at(p.boxes, k), t.unseen_s[slot], t.hits[slot]);
    t.scores[slot] = add(t.scores[slot], mul(p.config.score_gain, sub(score, t.scores[slot])));
    if (label == t.labels[slot]) {
        t.votes[slot] = fminf(add(t.votes[slot], score), 30.0f);
    } else {
        t.votes[slot] = sub(t.votes[slot], score);
        if (t.votes[slot] < 0.0f) {
            t.labels[slot] = label;
            t.votes[slot] = score;
        }
    }
    if (t.hits[slot] < 0x7fffffff) t.hits[slot]++;
    t.seen_bits[slot] = int32_t(uint32_t(t.seen_bits[slot]) << 1 | 1);
    t.misses[slot] = 0;
    t.unseen_s[slot] = 0.0f;
    show(p, t, k, slot);
}

DEVICE void age(const TrackerConfig& config, const Table& t, uint32_t slot) {
    if (t.ids[slot] == 0 || t.visibility[slot] == VISIBLE) return;
    if (t.misses[slot] < 0x7fffffff) t.misses[slot]++;
    t.seen_bits[slot] = int32_t(uint32_t(t.seen_bits[slot]) << 1);
    const uint32_t to_confirm = config.confirm_window > config.confirm_hits ? config.confirm_window - config.confirm_hits : 0;
    const uint32_t patience = t.confirmed[slot] != 0 ? config.forget_frames : to_confirm;
    if (uint32_t(t.misses[slot]) > patience) {
        t.ids[slot] = 0;
    } else if (t.unseen_s[slot] > config.relocalize_s) {
        t.visibility[slot] = LOST;
    }
}

// The next identity that no track has. Called by a whole warp.
DEVICE int32_t issue_id(const Table& t, uint32_t capacity) {
    const uint32_t lane = threadIdx.x % 32;
    int32_t id = *t.last_id;
    for (bool held = true; held;) {
        id = id >= 0 && id < 0x7fffffff ? id + 1 : 1;
        bool mine = false;
        for (uint32_t slot = lane; slot < capacity; slot += 32) mine = mine || t.ids[slot] == id;
        held = __any_sync(0xffffffffu, mine) != 0;
    }
    if (lane == 0) *t.last_id = id;
    __syncwarp();
    return id;
}

// An empty slot, or else that of a track not in view: unconfirmed ones first, then the one not seen for longest. Negative for
// none. Called by a whole warp.
DEVICE int32_t slot_to_take(const Table& t, uint32_t capacity) {
    Least best = nothing();
    for (uint32_t slot = threadIdx.x % 32; slot < capacity; slot += 32) {
        if (t.ids[slot] != 0 && t.visibility[slot] == VISIBLE) continue;
        const uint64_t worth = uint64_t(t.confirmed[slot] == 0 ? 1 : 0) << 63 |
                               uint64_t(__float_as_uint(t.unseen_s[slot]) & 0x7fffffffu) << 32 |
                               (uint32_t(t.misses[slot]) ^ 0x80000000u);
        // Nothing that can be taken has a key of 0 unless its slot is empty.
        const Least offer = {t.ids[slot] == 0 ? 0 : ~worth, slot};
        if (offer.before(best)) best = offer;
    }
    return int32_t(warp_least(best).tag);
}

// Called by a whole warp.
DEVICE bool is_duplicate(const TrackUpdateParams& p, uint32_t valid, uint32_t k) {
    bool mine = false;
    for (uint32_t other = threadIdx.x % 32; other < valid; other += 32) {
        mine = mine || (p.slots[other] != UNMATCHED && p.classes[other] == p.classes[k] &&
                        overlap_cxcywh(box_at(p.boxes, other), box_at(p.boxes, k)).iou >= p.config.duplicate_iou);
    }
    return __any_sync(0xffffffffu, mine) != 0;
}

// Called by a whole warp.
DEVICE void give_birth(const TrackUpdateParams& p, const Table& t, uint32_t valid) {
    for (uint32_t k = 0; k < valid; k++) {
        if (!is_box(p, k) || p.slots[k] != UNMATCHED) continue;
        const bool worthy = p.scores[k] >= p.config.birth_score && !is_duplicate(p, valid, k);
        const int32_t slot = worthy ? slot_to_take(t, p.capacity) : UNMATCHED;
        const int32_t id = issue_id(t, p.capacity);
        if (threadIdx.x % 32 == 0) {
            if (slot == UNMATCHED) {
                p.track_ids[k] = id;
                p.visibility[k] = VISIBLE;
            } else {
                for (int i = 0; i < 4; i++) {
                    t.boxes[4 * slot + i] = p.boxes[4 * k + i];
                    t.velocities[4 * slot + i] = 0.0f;
                }
                t.ids[slot] = id;
                t.labels[slot] = p.classes[k];
                t.scores[slot] = p.scores[k];
                t.votes[slot] = p.scores[k];
                t.unseen_s[slot] = 0.0f;
                t.seen_bits[slot] = 1;
                t.hits[slot] = 1;
                t.misses[slot] = 0;
                t.confirmed[slot] = 0;
                show(p, t, k, uint32_t(slot));
            }
        }
        __syncwarp();
    }
}

// Called by a whole warp.
DEVICE int32_t scene(const TrackUpdateParams& p, const Table& t, float dt_s) {
    bool any = false, in_view = false;
    for (uint32_t slot = threadIdx.x % 32; slot < p.capacity; slot += 32) {
        if (t.ids[slot] == 0) continue;
        any = any || t.visibility[slot] != LOST;
        in_view = in_view || (t.visibility[slot] == VISIBLE && t.confirmed[slot] != 0);
    }
    any = __any_sync(0xffffffffu, any) != 0;
    in_view = __any_sync(0xffffffffu, in_view) != 0;
    const float unseen_s = in_view ? 0.0f : fminf(add(*t.scene_unseen_s, dt_s), LONGEST_STEP_S);
    const int32_t was_visible = in_view ? 1 : *t.scene_was_visible;
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
        *t.scene_unseen_s = unseen_s;
        *t.scene_was_visible = was_visible;
    }
    const bool lately = was_visible != 0 && unseen_s <= p.config.relocalize_s;
    return in_view ? VISIBLE : any || lately ? RELOCALIZING : LOST;
}

// Frames that are unrelated images. Called by a whole warp, the table already empty.
DEVICE int32_t unrelated(const TrackUpdateParams& p, const Table& t, uint32_t valid, float dt_s) {
    int32_t result = LOST;
    for (uint32_t k = 0; k < valid; k++) {
        if (!is_box(p, k)) continue;
        const int32_t id = issue_id(t, p.capacity), believed = p.scores[k] >= p.config.birth_score ? 1 : 0;
        if (believed != 0) result = VISIBLE;
        if (threadIdx.x % 32 == 0) {
            p.track_ids[k] = id;
            p.visibility[k] = VISIBLE;
            p.confirmed[k] = believed;
        }
    }
    if (threadIdx.x % 32 == 0) {
        *t.scene_unseen_s = add(add(p.config.relocalize_s, dt_s), 1.0f);
        *t.scene_was_visible = 0;
    }
    return result;
}

// The numbers below `n` that pass, in order, to `to`. Called by a whole warp; returns how many.
template <class F>
DEVICE uint32_t list(int32_t* to, uint32_t n, F passes) {
    const uint32_t lane = threadIdx.x % 32;
    uint32_t len = 0;
    for (uint32_t first = 0; first < n; first += 32) {
        const bool mine = first + lane < n && passes(first + lane);
        const uint32_t ballot = __ballot_sync(0xffffffffu, mine);
        if (mine) to[len + __popc(ballot & ((1u << lane) - 1))] = int32_t(first + lane);
        len += __popc(ballot);
    }
    return len;
}

KERNEL_BOUNDED(track_update, TrackUpdateParams, 512) {
    DYNAMIC_SHARED(unsigned char, dynamic);
    SHARED(SolverRoom, solver, );
    SHARED(uint32_t, lengths, [2]);
    const uint32_t n = p.capacity, most = p.most, longer = max(n, most);
    // Working memory: what `exact_room` needs, pair costs and their copy, the table, lists.
    unsigned char* const memory = p.memory ? static_cast<unsigned char*>(p.memory) : dynamic;
    float* const costs = reinterpret_cast<float*>(memory + EXACT_BYTES_PER_COLUMN * size_t(longer));
    float* const f32s = costs + 2 * size_t(n) * most;
    int32_t* const i32s = reinterpret_cast<int32_t*>(f32s + 11 * n + 1);
    int32_t* const found = i32s + 7 * n + 2;
    int32_t* const track_of = found + most;
    int32_t* const live = track_of + most;
    const Table t(f32s, i32s, n);
    const uint32_t valid = uint32_t(min(max(*p.count, 0), int32_t(most)));
    const float dt_s = *p.dt_s > 0.0f ? fminf(*p.dt_s, LONGEST_STEP_S) : 0.0f;
    const bool independent = p.config.independent != 0;

    for (uint32_t i = threadIdx.x; i < 11 * n + 1; i += blockDim.x) f32s[i] = p.table_f32s[i];
    for (uint32_t i = threadIdx.x; i < 7 * n + 2; i += blockDim.x) i32s[i] = p.table_i32s[i];
    for (uint32_t k = threadIdx.x; k < most; k += blockDim.x) {
        p.track_ids[k] = 0;
        p.confirmed[k] = 0;
        p.visibility[k] = LOST;
        p.slots[k] = UNMATCHED;
    }
    __syncthreads();
    for (uint32_t slot = threadIdx.x; slot < n; slot += blockDim.x) {
        if (independent) t.ids[slot] = 0;
        if (t.ids[slot] == 0) continue;
        t.unseen_s[slot] = add(t.unseen_s[slot], dt_s);
        if (t.unseen_s[slot] > p.config.forget_s) {
            t.ids[slot] = 0;
            continue;
        }
        predict(p.config, t.boxes + 4 * slot, t.velocities + 4 * slot, dt_s, t.misses[slot] > 0);
        t.visibility[slot] = RELOCALIZING;
    }
    __syncthreads();

    if (!independent) {
        if (threadIdx.x < 32) {
            const uint32_t found_len = list(found, valid, [&](uint32_t k) { return is_box(p, k); });
            const uint32_t live_len = list(live, n, [&](uint32_t slot) { return t.ids[slot] != 0; });
            if (threadIdx.x == 0) {
                lengths[0] = found_len;
                lengths[1] = live_len;
            }
        }
        __syncthreads();
        const CostMatrix cost = {costs, lengths[0], lengths[1], lengths[1]};
        for (uint32_t i = threadIdx.x; i < cost.rows * cost.cols; i += blockDim.x) {
            costs[i] = pair_cost(p, t, uint32_t(found[i / cost.cols]), uint32_t(live[i % cost.cols]));
        }
        __syncthreads();
        const double max_cost = p.config.max_cost;
        if (p.config.greedy != 0) {
            solve_greedy(cost, max_cost, solver, track_of);
        } else {
            const ExactRoom room = exact_room(costs + size_t(n) * most, memory, longer);
            solve_exact(cost, max_cost, room, solver, track_of, nullptr, nullptr);
        }
        for (uint32_t r = threadIdx.x; r < cost.rows; r += blockDim.x) {
            if (track_of[r] != UNMATCHED) take(p, t, uint32_t(found[r]), uint32_t(live[track_of[r]]));
        }
        __syncthreads();
        for (uint32_t slot = threadIdx.x; slot < n; slot += blockDim.x) age(p.config, t, slot);
        __syncthreads();
    }
    if (threadIdx.x < 32) {
        if (!independent) give_birth(p, t, valid);
        const int32_t now = independent ? unrelated(p, t, valid, dt_s) : scene(p, t, dt_s);
        if (threadIdx.x == 0) *p.scene = now;
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < 11 * n + 1; i += blockDim.x) p.next_f32s[i] = f32s[i];
    for (uint32_t i = threadIdx.x; i < 7 * n + 2; i += blockDim.x) p.next_i32s[i] = i32s[i];
}
