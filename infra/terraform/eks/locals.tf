locals {
  taints = {
    for name, pool in var.pools : name => merge(
      { "graftline.dev/pool" = name },
      pool.gpus > 0 ? { "nvidia.com/gpu" = "present" } : {},
      pool.spot ? { "graftline.dev/spot" = "true" } : {},
    )
  }

  # An empty group has no node to look at: the autoscaler reads labels, taints and GPUs from tags of its scaling group.
  # https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/cloudprovider/aws/README.md
  hints = merge([
    for name, pool in var.pools : merge(
      { "${name} label" = { pool = name, key = "label/graftline.dev/pool", value = name } },
      { for key, value in local.taints[name] : "${name} taint ${key}" => { pool = name, key = "taint/${key}", value = "${value}:NoSchedule" } },
      pool.gpus > 0 ? { "${name} gpu" = { pool = name, key = "resources/nvidia.com/gpu", value = tostring(pool.gpus) } } : {},
    )
  ]...)
}
