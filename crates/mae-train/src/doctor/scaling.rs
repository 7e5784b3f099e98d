//! How long training takes on several devices: formulas, from the sizes of a model and the speeds of hardware.
//!
//! A [`Job`] is what is computed, a [`Cluster`] what it is computed on; [`Job::on`] is what comes of it.
//! `docs/scaling.md` compares the formulas with measurements.

use serde::{Deserialize, Serialize};

/// What data-parallel training computes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Bytes of all gradients, which are f32.
    pub gradient_bytes: f64,
    /// Bytes of the last bucket of gradients, which nothing can hide.
    pub last_bucket_bytes: f64,
    /// Floating-point operations of an image's forward and backward pass.
    pub flops_per_image: f64,
    /// Images of an update, of all devices.
    pub images_per_update: f64,
    /// Batches of an update: gradients travel with the last.
    pub accumulate: f64,
    /// Images of the whole run.
    pub images: f64,
}

/// The share of an update's operations that is the backward pass: twice the forward pass.
const BACKWARD: f64 = 2.0 / 3.0;

/// What it is computed on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Devices in all.
    pub devices: usize,
    /// Devices of one machine.
    pub devices_per_node: usize,
    /// Floating-point operations that a device makes of the model in a second: its peak times the share reached.
    pub flops: f64,
    /// Links within a machine.
    pub local: Link,
    /// Links of one machine to the others.
    pub network: Link,
    /// Cores of a machine that load images.
    pub cores_per_node: f64,
    /// Images that a core loads in a second.
    pub images_per_core: f64,
}

/// A way for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Bytes that pass in a second, in each direction.
    pub bytes_per_s: f64,
    /// Seconds until the first byte arrives.
    pub latency: f64,
}

/// Seconds of one update, and what they are spent on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Update {
    /// Forward and backward pass.
    pub compute: f64,
    /// Averaging the gradients, were nothing computed meanwhile.
    pub all_reduce: f64,
    /// Of it, what the backward pass does not hide.
    pub exposed: f64,
    /// Loading the images, which happens beside all else.
    pub loading: f64,
    /// The update.
    pub total: f64,
    /// What an update would take longer without.
    pub limit: Limit,
    /// Cores that keep one device fed.
    pub cores_per_device: f64,
    /// Seconds of the whole run.
    pub run: f64,
}

/// What the time of an update is spent on, for the most part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// The devices compute all the time, but for a tenth at most.
    Compute,
    /// The devices wait for each other's gradients.
    Network,
    /// The devices wait for images.
    Loading,
}

impl Link {
    /// Seconds of a ring all-reduce of `bytes` by `members`: each sends and receives its share twice, but for its own.
    ///
    /// Source: Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations".
    pub fn all_reduce(&self, bytes: f64, members: usize) -> f64 {
        let members = members as f64;
        let rounds = 2.0 * (members - 1.0);
        rounds * (bytes / members / self.bytes_per_s + self.latency)
    }
}

impl Cluster {
    /// Seconds to average `bytes` over all devices: within each machine, between machines, within each again.
    ///
    /// Each device of a machine carries its share of the bytes to the other machines, so these pass its network once.
    pub fn all_reduce(&self, bytes: f64) -> f64 {
        let local = self.devices.min(self.devices_per_node);
        let nodes = self.devices.div_ceil(self.devices_per_node);
        let inside = if local > 1 {
            self.local.all_reduce(bytes, local)
        } else {
            0.0
        };
        let between = if nodes > 1 {
            self.network.all_reduce(bytes, nodes)
        } else {
            0.0
        };
        inside + between
    }
}

impl Job {
    /// One update on `cluster`.
    pub fn on(&self, cluster: &Cluster) -> Update {
        let images_per_device = self.images_per_update / cluster.devices as f64;
        let compute = images_per_device * self.flops_per_image / cluster.flops;
        let all_reduce = cluster.all_reduce(self.gradient_bytes);
        let last_bucket = cluster.all_reduce(self.last_bucket_bytes.min(self.gradient_bytes));
        // Buckets travel while the last batch's backward pass computes the next ones; the last bucket comes after it.
        let hiding = BACKWARD * compute / self.accumulate;
        let exposed = (all_reduce - hiding).max(last_bucket.min(all_reduce));
        let nodes = cluster.devices.div_ceil(cluster.devices_per_node) as f64;
        let loaded = nodes * cluster.cores_per_node * cluster.images_per_core;
        let loading = self.images_per_update / loaded;
        let trained = compute + exposed;
        let total = trained.max(loading);
        Update {
            compute,
            all_reduce,
            exposed,
            loading,
            total,
            limit: if loading > trained {
                Limit::Loading
            } else if exposed > 0.1 * trained {
                Limit::Network
            } else {
                Limit::Compute
            },
            cores_per_device: images_per_device / trained / cluster.images_per_core,
            run: total * self.images / self.images_per_update,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link {
        bytes_per_s: 1e9,
        latency: 0.0,
    };

    fn cluster(devices: usize) -> Cluster {
        Cluster {
            devices,
            devices_per_node: 8,
            flops: 1e12,
            local: Link {
                bytes_per_s: 1e10,
                ..LINK
            },
            network: LINK,
            cores_per_node: 16.0,
            images_per_core: 500.0,
        }
    }

    fn job() -> Job {
        Job {
            gradient_bytes: 4e8,
            last_bucket_bytes: 2.5e7,
            flops_per_image: 1e9,
            images_per_update: 4096.0,
            accumulate: 1.0,
            images: 4096.0 * 100.0,
        }
    }

    #[test]
    fn a_ring_sends_each_byte_twice_but_for_its_own() {
        assert_eq!(LINK.all_reduce(1e9, 2), 1.0);
        assert!((LINK.all_reduce(1e9, 4) - 1.5).abs() < 1e-12);
        let slow = Link {
            latency: 1e-3,
            ..LINK
        };
        assert!((slow.all_reduce(0.0, 4) - 6e-3).abs() < 1e-12);
    }

    #[test]
    fn one_device_averages_with_nobody() {
        let update = job().on(&cluster(1));
        assert_eq!((update.all_reduce, update.exposed), (0.0, 0.0));
        assert!((update.compute - 4.096).abs() < 1e-12);
        assert_eq!(update.run, update.total * 100.0);
    }

    #[test]
    fn the_network_is_passed_once_between_machines() {
        // Within: 14/8 of 0.04 s. Between two machines: once 0.4 s.
        assert!((cluster(8).all_reduce(4e8) - 0.07).abs() < 1e-12);
        assert!((cluster(16).all_reduce(4e8) - 0.47).abs() < 1e-12);
    }

    #[test]
    fn the_backward_pass_hides_all_but_the_last_bucket() {
        let update = job().on(&cluster(8));
        assert!((update.compute - 0.512).abs() < 1e-12);
        assert_eq!(update.exposed, cluster(8).all_reduce(2.5e7));
        // With accumulation only the last of the backward passes hides anything.
        let accumulated = Job {
            accumulate: 16.0,
            ..job()
        };
        let update = accumulated.on(&cluster(8));
        assert!((update.exposed - (0.07 - 0.512 / 24.0)).abs() < 1e-12);
    }

    #[test]
    fn what_is_slowest_is_named() {
        assert_eq!(job().on(&cluster(8)).limit, Limit::Compute);
        assert_eq!(job().on(&cluster(64)).limit, Limit::Network);
        let starved = Cluster {
            images_per_core: 10.0,
            ..cluster(8)
        };
        let update = job().on(&starved);
        assert_eq!(update.limit, Limit::Loading);
        assert_eq!(update.total, 4096.0 / 160.0);
    }

    #[test]
    fn the_formulas_give_what_two_processes_took() {
        let measured = include_str!("../../../../docs/results/scaling.json");
        let measured: Vec<serde_json::Value> = serde_json::from_str(measured).unwrap();
        assert!(measured.len() >= 3);
        for case in measured {
            let seconds = |kind: &str| case[kind]["median"].as_f64().unwrap() / 1e3;
            let gradient_bytes = 4.0 * case["parameters"].as_f64().unwrap();
            let images = case["batch_size"].as_f64().unwrap();
            let job = Job {
                gradient_bytes,
                last_bucket_bytes: torch_ext::Reducer::BUCKET_BYTES as f64,
                flops_per_image: 1.0,
                images_per_update: images,
                accumulate: 1.0,
                images,
            };
            let cluster = Cluster {
                devices: 2,
                devices_per_node: 2,
                flops: images / 2.0 / seconds("two_apart_ms"),
                local: Link {
                    bytes_per_s: gradient_bytes / seconds("all_reduce_ms"),
                    latency: 0.0,
                },
                network: LINK,
                cores_per_node: 2.0,
                images_per_core: 1e9,
            };
            let (predicted, taken) = (job.on(&cluster).total, seconds("two_averaging_ms"));
            assert!(
                (predicted / taken - 1.0).abs() < 0.1,
                "{predicted} s, but {taken} s: {case}"
            );
        }
    }
}
