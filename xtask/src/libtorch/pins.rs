//! The digests that set-up insists on.
//!
//! What PyTorch's wheel requires is read from its METADATA; this says which exact file answers each requirement.
//! A wheel without a pin is still checked by pip against its index, and file by file against its own RECORD.

use super::platform::Platform;

/// One wheel, to the last bit.
#[derive(Debug, PartialEq, Eq)]
pub struct Pin {
    /// The package's normalised name.
    pub name: &'static str,
    /// The exact version.
    pub version: &'static str,
    /// The wheel's size.
    pub bytes: u64,
    /// The wheel's SHA-256, in hexadecimal.
    pub sha256: &'static str,
}

/// The pin of the package `name` on `platform`, if it has one.
pub fn find(platform: Platform, name: &str) -> Option<&'static Pin> {
    all(platform).iter().find(|pin| pin.name == name)
}

/// Every pin of `platform`.
pub fn all(platform: Platform) -> &'static [Pin] {
    match platform {
        Platform::LinuxX86_64 => &LINUX_X86_64,
        Platform::LinuxAarch64 => &LINUX_AARCH64,
        Platform::MacosAarch64 => &MACOS_AARCH64,
        Platform::WindowsX86_64 => &[],
    }
}

const LINUX_X86_64: [Pin; 19] = [
    Pin {
        name: "torch",
        version: "2.13.0",
        bytes: 526_605_292,
        sha256: "796633c4cdf0fe2cdced72d8f88f22e73dbcfce83132763162f6d4bff13b820b",
    },
    Pin {
        name: "cuda-toolkit",
        version: "13.0.3.0",
        bytes: 2_512,
        sha256: "d693caaa261214ddd7dbb60d68e71cbed884e68c2be7509778f3051da0b91c3f",
    },
    Pin {
        name: "nvidia-cublas",
        version: "13.1.1.3",
        bytes: 423_138_758,
        sha256: "37936a16db8fe4ac1f065c2139360608a543a09275cb1a1af612e08cfa065436",
    },
    Pin {
        name: "nvidia-cuda-cccl",
        version: "13.0.85",
        bytes: 3_120_526,
        sha256: "e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649",
    },
    Pin {
        name: "nvidia-cuda-crt",
        version: "13.0.88",
        bytes: 134_086,
        sha256: "2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4",
    },
    Pin {
        name: "nvidia-cuda-cupti",
        version: "13.0.85",
        bytes: 10_715_597,
        sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
    },
    Pin {
        name: "nvidia-cuda-nvrtc",
        version: "13.0.88",
        bytes: 90_215_200,
        sha256: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
    },
    Pin {
        name: "nvidia-cuda-runtime",
        version: "13.0.96",
        bytes: 2_243_632,
        sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
    },
    Pin {
        name: "nvidia-cudnn-cu13",
        version: "9.20.0.48",
        bytes: 366_173_588,
        sha256: "0c45dd8eeb50b603f07995b1b300c62ffe6a1980482b82b3bcf94a4ca9d49304",
    },
    Pin {
        name: "nvidia-cufft",
        version: "12.0.0.61",
        bytes: 214_085_489,
        sha256: "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3",
    },
    Pin {
        name: "nvidia-cufile",
        version: "1.15.1.6",
        bytes: 1_223_672,
        sha256: "08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44",
    },
    Pin {
        name: "nvidia-curand",
        version: "10.4.0.35",
        bytes: 59_544_258,
        sha256: "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
    },
    Pin {
        name: "nvidia-cusolver",
        version: "12.0.4.66",
        bytes: 200_941_980,
        sha256: "0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112",
    },
    Pin {
        name: "nvidia-cusparse",
        version: "12.6.3.3",
        bytes: 145_942_937,
        sha256: "2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b",
    },
    Pin {
        name: "nvidia-cusparselt-cu13",
        version: "0.8.1",
        bytes: 170_148_586,
        sha256: "786ce87568c303fadb5afcc7102d454cd3040d75f6f8626f5db460d1871f4dd0",
    },
    Pin {
        name: "nvidia-nccl-cu13",
        version: "2.29.7",
        bytes: 205_976_000,
        sha256: "edd81538446786ec3b73972543e53bb43bcaf0bfc8ef76cb679fcc390ffe136d",
    },
    Pin {
        name: "nvidia-nvjitlink",
        version: "13.0.88",
        bytes: 40_713_933,
        sha256: "13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b",
    },
    Pin {
        name: "nvidia-nvshmem-cu13",
        version: "3.4.5",
        bytes: 60_412_546,
        sha256: "290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80",
    },
    Pin {
        name: "nvidia-nvtx",
        version: "13.0.85",
        bytes: 148_047,
        sha256: "4936d1d6780fbe68db454f5e72a42ff64d1fd6397df9f363ae786930fd5c1cd4",
    },
];

const LINUX_AARCH64: [Pin; 1] = [Pin {
    name: "torch",
    version: "2.13.0",
    bytes: 427_210_998,
    sha256: "572df8be8ffb4599c88cbd6a0726f1f854f4da65d2e3c09f0e2c2283333cd6d4",
}];

const MACOS_AARCH64: [Pin; 1] = [Pin {
    name: "torch",
    version: "2.13.0",
    bytes: 111_213_045,
    sha256: "2fe228aba290d14b9f31b049be550dbd469c3fd3013d7a19705b30454da97027",
}];
