variable "project" {
  description = "Google Cloud project that the cluster is in."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project id: 6 to 30 lower-case letters, digits and hyphens."
  }
}

variable "cluster" {
  description = "Name of an existing GKE cluster with Workload Identity."
  type        = string
}

variable "location" {
  description = "Region or zone of the cluster, such as europe-west4."
  type        = string
  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9](-[a-z])?$", var.location))
    error_message = "A region such as europe-west4 or a zone such as europe-west4-a."
  }
}

variable "pools" {
  description = "Node pools by name, which must be a profile of pipelines/profiles.yaml. Zones: those that have the machine."
  type = map(object({
    machine_type = string
    spot         = bool
    max_nodes    = number
    zones        = list(string)
    disk_type    = optional(string, "pd-balanced")
    disk_size_gb = optional(number, 200)
    accelerator  = optional(object({ type = string, count = number }))
  }))
  default = {
    cpu = {
      machine_type = "n2-standard-4"
      spot         = false
      max_nodes    = 8
      zones        = ["europe-west4-a"]
    }
    gpu-l4-spot = {
      machine_type = "g2-standard-8"
      spot         = true
      max_nodes    = 8
      zones        = ["europe-west4-a", "europe-west4-b"]
      accelerator  = { type = "nvidia-l4", count = 1 }
    }
    gpu-a100 = {
      machine_type = "a2-ultragpu-1g"
      spot         = false
      max_nodes    = 4
      zones        = ["europe-west4-a"]
      disk_size_gb = 300
      accelerator  = { type = "nvidia-a100-80gb", count = 1 }
    }
    gpu-h100x8 = {
      machine_type = "a3-highgpu-8g"
      spot         = false
      max_nodes    = 1
      zones        = ["europe-west4-b"]
      disk_type    = "pd-ssd"
      disk_size_gb = 750
      accelerator  = { type = "nvidia-h100-80gb", count = 8 }
    }
  }
  validation {
    condition     = alltrue([for pool in values(var.pools) : pool.max_nodes >= 1 && pool.max_nodes <= 100])
    error_message = "max_nodes is between 1 and 100: it limits what a mistake can cost."
  }
  validation {
    condition     = alltrue([for name, pool in var.pools : pool.spot == endswith(name, "-spot")])
    error_message = "A pool of spot machines, and no other, has a name that ends in -spot."
  }
  validation {
    condition     = alltrue([for pool in values(var.pools) : length(pool.zones) > 0])
    error_message = "Each pool names the zones that have its machine."
  }
}
