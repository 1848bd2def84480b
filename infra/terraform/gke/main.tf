# GPU node pools of an existing GKE cluster: none runs while no pod asks for one. Labels and taints are those of
# pipelines/profiles.yaml. https://registry.terraform.io/providers/hashicorp/google/latest/docs/resources/container_node_pool
resource "google_service_account" "node" {
  project      = var.project
  account_id   = "graftline-node"
  display_name = "Nodes of Graftline's pools"
}

# What a node needs and no more: write logs and metrics, pull images.
resource "google_project_iam_member" "node" {
  for_each = toset(["roles/logging.logWriter", "roles/monitoring.metricWriter", "roles/artifactregistry.reader"])
  project  = var.project
  role     = each.value
  member   = "serviceAccount:${google_service_account.node.email}"
}

resource "google_container_node_pool" "pool" {
  for_each = var.pools
  project  = var.project
  cluster  = var.cluster
  location = var.location
  name     = each.key

  node_locations     = each.value.zones
  initial_node_count = 0

  autoscaling {
    total_min_node_count = 0
    total_max_node_count = each.value.max_nodes
    location_policy      = "ANY" # where a GPU is free, rather than evenly
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  node_config {
    machine_type    = each.value.machine_type
    spot            = each.value.spot
    image_type      = "COS_CONTAINERD"
    disk_type       = each.value.disk_type
    disk_size_gb    = each.value.disk_size_gb
    service_account = google_service_account.node.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"] # IAM decides, by the account above

    labels = { "graftline.dev/pool" = each.key }

    dynamic "guest_accelerator" {
      for_each = each.value.accelerator == null ? [] : [each.value.accelerator]
      content {
        type  = guest_accelerator.value.type
        count = guest_accelerator.value.count
        gpu_driver_installation_config {
          gpu_driver_version = "DEFAULT"
        }
      }
    }

    taint {
      key    = "graftline.dev/pool"
      value  = each.key
      effect = "NO_SCHEDULE"
    }

    # GKE adds nvidia.com/gpu=present by itself, but not while the pool has no node: the autoscaler reads it here.
    dynamic "taint" {
      for_each = each.value.accelerator == null ? [] : ["present"]
      content {
        key    = "nvidia.com/gpu"
        value  = taint.value
        effect = "NO_SCHEDULE"
      }
    }

    dynamic "taint" {
      for_each = each.value.spot ? ["true"] : []
      content {
        key    = "graftline.dev/spot"
        value  = taint.value
        effect = "NO_SCHEDULE"
      }
    }

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    workload_metadata_config {
      mode = "GKE_METADATA" # a pod cannot ask for the node's credentials
    }

    metadata = { "disable-legacy-endpoints" = "true" }
  }

  lifecycle {
    ignore_changes = [initial_node_count] # a change of it would make the pool anew
  }
}
