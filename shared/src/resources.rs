//! How much at once: what an import may use of a function of a given size.

use crate::limits;

/// What an import may use at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Threads that compress.
    pub cores: usize,
    /// Blobs that are read, compressed and sent at once.
    pub blobs_at_once: usize,
    /// Ranges of [`limits::RANGE_BYTES`] that are read ahead at once, over all blobs.
    pub ranges_at_once: usize,
}

impl Resources {
    /// Of a function of `memory_mib` MiB with `cores` processors.
    ///
    /// Up to the default size everything fits into [128 MiB](limits::RANGES_AT_ONCE); beyond it, into a thirty-second of
    /// the function's memory: the ranges, and with zstd the frames of 4 MiB under way, two for each core in and out.
    pub fn of_function(memory_mib: u64, cores: usize) -> Self {
        let ranges = usize::try_from(memory_mib / limits::MEMORY_MIB_PER_RANGE).unwrap_or(usize::MAX);
        let (least, most) = (*limits::RANGES_AT_ONCE.start(), *limits::RANGES_AT_ONCE.end());
        let (fewest, many) = (*limits::BLOBS_AT_ONCE.start(), *limits::BLOBS_AT_ONCE.end());
        let cores = cores.max(1);
        Self { cores, blobs_at_once: (cores + 1).clamp(fewest, many), ranges_at_once: ranges.clamp(least, most) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_every_size_use_what_they_have() {
        for (memory_mib, cores, blobs_at_once, ranges_at_once) in
            [(128, 1, 3, 6), (512, 1, 3, 6), (1_769, 1, 3, 6), (3_008, 2, 3, 8), (5_307, 3, 4, 14), (10_240, 6, 5, 27)]
        {
            let wanted = Resources { cores, blobs_at_once, ranges_at_once };
            assert_eq!(Resources::of_function(memory_mib, cores), wanted, "{memory_mib} MiB");
        }
        let unknown = Resources::of_function(u64::MAX, 0);
        assert_eq!((unknown.cores, unknown.ranges_at_once), (1, 32));
    }
}
