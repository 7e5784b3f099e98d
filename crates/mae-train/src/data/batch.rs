//! What loaders make, as tensors on a device.

use anyhow::{Context, Result};
use mae_data::{ImageBatch, MaskedBatch, Pixels, Transform};
use tch::{Device, Tensor};

/// The tensors of a batch: visible and masked patches as u8 or f32, and `ids_shuffle`.
///
/// # Shapes
/// - `[batch, kept, patch_dim]`, `[batch, patches - kept, patch_dim]`, `[batch, patches]`
pub fn masked_to_device(batch: &MaskedBatch, device: Device) -> (Tensor, Tensor, Tensor) {
    let (images, kept) = (batch.len() as i64, batch.kept as i64);
    let patches = batch.ids_shuffle.len() as i64 / images;
    (
        send(tensor_of(&batch.visible).view([images, kept, -1]), device),
        send(
            tensor_of(&batch.masked).view([images, patches - kept, -1]),
            device,
        ),
        send(
            Tensor::from_slice(&batch.ids_shuffle).view([images, patches]),
            device,
        ),
    )
}

/// The images of a batch, `[batch, height, width, channels]`, u8 or f32, on a device.
pub fn images_to_device(batch: &ImageBatch, transform: &Transform, device: Device) -> Tensor {
    let size = [batch.len(), transform.height, transform.width].map(|side| side as i64);
    let images = tensor_of(&batch.pixels).view([size[0], size[1], size[2], -1]);
    send(images, device)
}

/// The labels of a batch, `[batch]`, i64 on the CPU.
///
/// # Errors
/// If an image has none.
pub fn labels_of(batch: &ImageBatch) -> Result<Tensor> {
    label_tensor(batch.labels.iter().copied())
}

/// Labels as a tensor, i64 on the CPU.
///
/// # Errors
/// If there is none for an image.
pub fn label_tensor(labels: impl Iterator<Item = Option<u32>>) -> Result<Tensor> {
    let labels: Option<Vec<i64>> = labels.map(|label| label.map(i64::from)).collect();
    let labels = labels
        .context("an image has no label: put each into a sub-folder named after its class")?;
    Ok(Tensor::from_slice(&labels))
}

/// Pixels as a tensor of one dimension on the CPU, u8 or f32.
pub fn tensor_of(pixels: &Pixels) -> Tensor {
    match pixels {
        Pixels::U8(values) => Tensor::from_slice(values),
        Pixels::F32(values) => Tensor::from_slice(values),
    }
}

/// On CUDA the copy starts from pinned memory and is not waited for.
fn send(tensor: Tensor, device: Device) -> Tensor {
    match device {
        Device::Cuda(_) => tensor
            .pin_memory(device)
            .to_device_(device, tensor.kind(), true, false),
        _ => tensor,
    }
}
