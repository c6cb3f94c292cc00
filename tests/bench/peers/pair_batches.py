"""Which pairs are in which batch of Carousel's training, and in which order, so that another
program trains on the same. What this computes is said in engine/batches/pair_plan.h and
bucket_order.h, and of random numbers in kernels/common/random.h."""

import itertools

import numpy

STEP, MOST_BUCKETS = 2, 48
STREAM = 0xDA7A00000002  # of the numbers that shuffle
LOW = numpy.uint64(0xFFFFFFFF)
HALF = numpy.uint64(32)


def bound_of(steps, longest):
    bound = 0
    while bound < steps:
        more = bound + max(STEP, bound // 4)
        bound = (more + STEP - 1) // STEP * STEP
    return min(bound, longest)


def joined(buckets, batch):
    """With the two that are best joined made one, or None. A bucket is (bounds, pairs)."""
    def padded(pairs, bounds):
        return -(-pairs // batch) * batch * sum(bounds)

    least, best = float("inf") if len(buckets) > MOST_BUCKETS else 1, None
    for (i, (a, first)), (j, (b, second)) in itertools.combinations(enumerate(buckets), 2):
        more = (padded(len(first) + len(second), list(map(max, a, b)))
                - padded(len(first), a) - padded(len(second), b))
        if more < least:
            least, best = more, (i, j)
    if best is None:
        return None
    i, j = best
    (a, first), (b, second) = buckets[i], buckets[j]
    one = tuple(map(max, a, b)), first + second
    return [*buckets[:i], one, *buckets[i + 1:j], *buckets[j + 1:]]


def buckets_of(lengths, batch):
    """The numbers of the pairs in each bucket, of these lengths (source, target) with <eos>."""
    longest = list(map(max, zip(*lengths)))
    by_bounds = {}
    for number, pair in enumerate(lengths):
        by_bounds.setdefault(tuple(map(bound_of, pair, longest)), []).append(number)
    buckets = sorted(by_bounds.items())
    while fewer := joined(buckets, batch):
        buckets = fewer
    return [sorted(numbers) for _, numbers in sorted(buckets)]


def key(seed):
    word = (1 << 64) - 1
    z = (seed + STREAM * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & word
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & word
    z = (z ^ z >> 27) * 0x94D049BB133111EB & word
    z ^= z >> 31
    return z & 0xFFFFFFFF, z >> 32


def draws(seed, epoch, count):
    """Numbers of 64 bits, by Philox 4x32 with ten rounds. One in 10^14 would be drawn again by
    Carousel, which is left out here."""
    blocks = numpy.arange(count, dtype=numpy.uint64)
    a, b = blocks & LOW, blocks >> HALF
    c, d = numpy.full_like(a, epoch & 0xFFFFFFFF), numpy.full_like(a, epoch >> 32)
    k, l = key(seed)
    for _ in range(10):
        first, second = a * numpy.uint64(0xD2511F53), c * numpy.uint64(0xCD9E8D57)
        a, b, c, d = (second >> HALF ^ b ^ numpy.uint64(k), second & LOW,
                      first >> HALF ^ d ^ numpy.uint64(l), first & LOW)
        k, l = k + 0x9E3779B9 & 0xFFFFFFFF, l + 0xBB67AE85 & 0xFFFFFFFF
    return iter((a << HALF | b).tolist())


def shuffle(items, drawn):
    for i in range(len(items), 1, -1):
        j = next(drawn) % i
        items[i - 1], items[j] = items[j], items[i - 1]


def batches(lengths, batch, seed):
    """Without end: the numbers of the pairs of each batch."""
    buckets = buckets_of(lengths, batch)
    for epoch in itertools.count():
        drawn = draws(seed, epoch, len(lengths) + len(lengths) // batch + len(buckets))
        mixed = [list(bucket) for bucket in buckets]
        for bucket in mixed:
            shuffle(bucket, drawn)
        order = [bucket[i:i + batch] for bucket in mixed for i in range(0, len(bucket), batch)]
        shuffle(order, drawn)
        yield from order
