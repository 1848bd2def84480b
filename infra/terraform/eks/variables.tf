variable "region" {
  description = "AWS region of the cluster, such as eu-central-1."
  type        = string
  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "A region such as eu-central-1."
  }
}

variable "cluster" {
  description = "Name of an existing EKS cluster."
  type        = string
  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9_-]{0,45}$", var.cluster))
    error_message = "A cluster's name, at most 46 characters: the role's name has it and a suffix."
  }
}

variable "subnet_ids" {
  description = "Private subnets for the nodes, in zones that have the machines."
  type        = list(string)
  validation {
    condition     = length(var.subnet_ids) > 0 && alltrue([for id in var.subnet_ids : startswith(id, "subnet-")])
    error_message = "At least one id that starts with subnet-."
  }
}

variable "pools" {
  description = "Node groups by name, which must be a profile of pipelines/profiles.yaml. gpus: of one machine."
  type = map(object({
    instance_types = list(string)
    spot           = bool
    gpus           = number
    max_nodes      = number
    disk_size_gb   = optional(number, 200)
  }))
  default = {
    cpu = {
      instance_types = ["m7i.xlarge", "m6i.xlarge"]
      spot           = false
      gpus           = 0
      max_nodes      = 8
    }
    gpu-l4-spot = {
      instance_types = ["g6.2xlarge", "g6.4xlarge"]
      spot           = true
      gpus           = 1
      max_nodes      = 8
    }
    gpu-a100 = {
      instance_types = ["p4de.24xlarge"] # eight A100 of 80 GB: AWS has no machine with fewer
      spot           = false
      gpus           = 8
      max_nodes      = 1
    }
    gpu-h100x8 = {
      instance_types = ["p5.48xlarge"]
      spot           = false
      gpus           = 8
      max_nodes      = 1
      disk_size_gb   = 500
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
}
