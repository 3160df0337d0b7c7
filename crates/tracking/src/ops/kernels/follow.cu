// What somebody pointed at: see `follow/mod.rs`, whose steps and names these are. One thread does the handful of slots in turn.
#include "motion.cuh"

constexpr uint32_t SLOT_LEN = 12, SCORES = 6;
constexpr int32_t PADDING = 0, NEGATIVE = 1, POSITIVE = 2, TOP_LEFT = 3, BOTTOM_RIGHT = 4;
constexpr int32_t NONE = 0, SEEN = 1, UNSEEN = 2, GONE = 3;
constexpr float FOLLOW = 1.0f, LET_GO = 3.0f, MIN_SIDE = 2e-3f;

struct FollowConfig {
    float measurement_noise, acceleration_noise, nominal_dt_s, coast_s;
    float least_iou, least_quality, most_of_frame, most_growth, forget_s;
    uint32_t reserved;
};

// A tensor of P values: `[P]`, or `[P, 1]` with a pitch.
struct Values {
    const void* data;
    uint32_t pitch, reserved;
    DEVICE float f32(uint32_t i) const { return static_cast<const float*>(data)[size_t(i) * pitch]; }
    DEVICE int32_t i32(uint32_t i) const { return static_cast<const int32_t*>(data)[size_t(i) * pitch]; }
};

struct FollowBeginParams {
    const float* commands;  // `[P, 12]`
    const float* slots;     // `[P, 12]`
    const float* dt_s;
    float* positions;       // `[P, 2, 2]`
    int32_t* kinds;         // `[P, 2]`
    int32_t* rows;          // `[P]`
    int32_t* count;
    int32_t* keys;          // `[P]`
    float* next;            // `[P, 12]`
    FollowConfig config;
    float width, height;
    uint32_t most, reserved;
};

struct FollowFinishParams {
    const float* slots;
    const int32_t* rows;
    const int32_t* count;
    Values iou, area_px;
    const int32_t* box_xyxy;  // `[P, 4]`
    const float* quality;     // `[P, 6]`
    const float* dt_s;
    int32_t* statuses;
    float* next;
    FollowConfig config;
    float width, height;
    uint32_t most, reserved;
};

DEVICE int32_t kind_of(float value) { return value == 2.0f ? POSITIVE : NEGATIVE; }

DEVICE void adjust(float* box, float x, float y, int32_t kind) {
    float left = sub(box[0], mul(0.5f, box[2])), top = sub(box[1], mul(0.5f, box[3]));
    float right = add(box[0], mul(0.5f, box[2])), bottom = add(box[1], mul(0.5f, box[3]));
    if (kind == POSITIVE) {
        left = fminf(left, x);
        top = fminf(top, y);
        right = fmaxf(right, x);
        bottom = fmaxf(bottom, y);
    } else if (left < x && x < right && top < y && y < bottom) {
        const float nearest = fminf(fminf(fminf(sub(x, left), sub(right, x)), sub(y, top)), sub(bottom, y));
        if (nearest == sub(x, left)) {
            left = x;
        } else if (nearest == sub(right, x)) {
            right = x;
        } else if (nearest == sub(y, top)) {
            top = y;
        } else {
            bottom = y;
        }
    }
    box[0] = mul(0.5f, add(left, right));
    box[1] = mul(0.5f, add(top, bottom));
    box[2] = fmaxf(sub(right, left), MIN_SIDE);
    box[3] = fmaxf(sub(bottom, top), MIN_SIDE);
}

// Where to look for what is in a slot; false for nothing.
DEVICE bool look_for(const FollowConfig& config, float* slot, const float* command, float dt_s, float* at, int32_t* kinds) {
    if (command[0] == LET_GO || command[0] == FOLLOW) {
        for (uint32_t i = 0; i < SLOT_LEN; i++) slot[i] = 0.0f;
    }
    if (command[0] == FOLLOW) {
        slot[0] = 1.0f;
        if (command[5] == 0.0f) {
            slot[1] = command[6];
            slot[2] = command[7];
            slot[3] = slot[4] = MIN_SIDE;
            at[0] = command[6];
            at[1] = command[7];
            at[2] = command[9];
            at[3] = command[10];
            kinds[0] = kind_of(command[8]);
            kinds[1] = command[11] == 0.0f ? PADDING : kind_of(command[11]);
            return true;
        }
        for (uint32_t i = 1; i < 5; i++) slot[i] = command[i];
    } else if (slot[0] > 0.0f) {
        predict(config, slot + 1, slot + 5, fmaxf(dt_s, 0.0f), slot[9] > 0.0f);
    }
    if (!(slot[0] > 0.0f)) return false;
    for (uint32_t point = 6; point <= 9; point += 3) {
        if (command[point + 2] != 0.0f) adjust(slot + 1, command[point], command[point + 1], kind_of(command[point + 2]));
    }
    at[0] = sub(slot[1], mul(0.5f, slot[3]));
    at[1] = sub(slot[2], mul(0.5f, slot[4]));
    at[2] = add(slot[1], mul(0.5f, slot[3]));
    at[3] = add(slot[2], mul(0.5f, slot[4]));
    kinds[0] = TOP_LEFT;
    kinds[1] = BOTTOM_RIGHT;
    return true;
}

KERNEL(follow_begin, FollowBeginParams) {
    if (threadIdx.x != 0) return;
    for (uint32_t i = 0; i < p.most; i++) {
        for (uint32_t k = 0; k < 4; k++) p.positions[4 * i + k] = 0.0f;
        p.kinds[2 * i] = p.kinds[2 * i + 1] = PADDING;
        p.rows[i] = -1;
        p.keys[i] = 0;
    }
    uint32_t row = 0;
    for (uint32_t number = 0; number < p.most; number++) {
        float* const slot = p.next + SLOT_LEN * number;
        for (uint32_t i = 0; i < SLOT_LEN; i++) slot[i] = p.slots[SLOT_LEN * number + i];
        float at[4];
        int32_t kinds[2];
        if (!look_for(p.config, slot, p.commands + SLOT_LEN * number, p.dt_s[0], at, kinds)) continue;
        for (uint32_t k = 0; k < 4; k++) p.positions[4 * row + k] = mul(at[k], k % 2 == 0 ? p.width : p.height);
        p.kinds[2 * row] = kinds[0];
        p.kinds[2 * row + 1] = kinds[1];
        p.rows[row] = int32_t(number);
        p.keys[row] = slot[10] > 0.0f ? int32_t(number) + 1 : -int32_t(number) - 1;
        row++;
    }
    p.count[0] = int32_t(row);
}

KERNEL(follow_finish, FollowFinishParams) {
    if (threadIdx.x != 0) return;
    for (uint32_t i = 0; i < SLOT_LEN * p.most; i++) p.next[i] = p.slots[i];
    for (uint32_t i = 0; i < p.most; i++) p.statuses[i] = NONE;
    const float dt_s = fmaxf(p.dt_s[0], 0.0f);
    const uint32_t count = p.count[0] < 0 ? 0 : uint32_t(p.count[0]) < p.most ? uint32_t(p.count[0]) : p.most;
    for (uint32_t row = 0; row < count; row++) {
        const int32_t number = p.rows[row];
        if (number < 0 || uint32_t(number) >= p.most) continue;
        float* const slot = p.next + SLOT_LEN * uint32_t(number);
        const float share = float(p.area_px.i32(row)) / mul(p.width, p.height), before = slot[11];
        const bool is_like_before =
            before <= 0.0f || (share <= mul(before, p.config.most_growth) && mul(share, p.config.most_growth) >= before);
        const bool shows = p.iou.f32(row) >= p.config.least_iou && p.quality[SCORES * row + SCORES - 1] >= p.config.least_quality;
        if (shows && share > 0.0f && share <= p.config.most_of_frame && is_like_before) {
            const int32_t* const corners = p.box_xyxy + 4 * row;
            const float left = float(corners[0]), top = float(corners[1]), right = float(corners[2]), bottom = float(corners[3]);
            const Box seen = {{mul(0.5f, add(left, right)) / p.width, mul(0.5f, add(top, bottom)) / p.height,
                               sub(right, left) / p.width, sub(bottom, top) / p.height}};
            if (slot[10] > 0.0f) {
                correct(p.config, slot + 1, slot + 5, seen, add(slot[9], dt_s), int32_t(slot[10]));
            } else {
                for (uint32_t i = 0; i < 4; i++) slot[1 + i] = seen.v[i];
            }
            slot[9] = 0.0f;
            slot[10] = fminf(add(slot[10], 1.0f), 1e6f);
            slot[11] = share;
            p.statuses[row] = SEEN;
            continue;
        }
        slot[9] = add(slot[9], dt_s);
        if (slot[10] > 0.0f && slot[9] <= p.config.forget_s) {
            p.statuses[row] = UNSEEN;
        } else {
            for (uint32_t i = 0; i < SLOT_LEN; i++) slot[i] = 0.0f;
            p.statuses[row] = GONE;
        }
    }
}
