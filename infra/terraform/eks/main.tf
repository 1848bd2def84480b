# GPU node groups of an existing EKS cluster, for the cluster autoscaler: none runs while no pod asks for one. With
# Karpenter (infra/components/karpenter) leave this out. Labels and taints are those of pipelines/profiles.yaml.
# https://registry.terraform.io/providers/hashicorp/aws/latest/docs/resources/eks_node_group
data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "node" {
  name               = "${var.cluster}-graftline-node"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

# What a node needs and no more: join the cluster, give pods addresses, pull images.
resource "aws_iam_role_policy_attachment" "node" {
  for_each   = toset(["AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryPullOnly"])
  role       = aws_iam_role.node.name
  policy_arn = "arn:aws:iam::aws:policy/${each.value}"
}

resource "aws_launch_template" "pool" {
  for_each    = var.pools
  name_prefix = "graftline-${each.key}-"

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_type           = "gp3"
      volume_size           = each.value.disk_size_gb
      encrypted             = true
      delete_on_termination = true
    }
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # a pod cannot ask for the node's credentials
  }

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "graftline-${each.key}" }
  }
}

resource "aws_eks_node_group" "pool" {
  for_each        = var.pools
  cluster_name    = var.cluster
  node_group_name = each.key
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = var.subnet_ids
  instance_types  = each.value.instance_types
  capacity_type   = each.value.spot ? "SPOT" : "ON_DEMAND"
  ami_type        = each.value.gpus > 0 ? "AL2023_x86_64_NVIDIA" : "AL2023_x86_64_STANDARD"

  scaling_config {
    min_size     = 0
    desired_size = 0
    max_size     = each.value.max_nodes
  }

  launch_template {
    id      = aws_launch_template.pool[each.key].id
    version = aws_launch_template.pool[each.key].latest_version
  }

  labels = { "graftline.dev/pool" = each.key }

  dynamic "taint" {
    for_each = local.taints[each.key]
    content {
      key    = taint.key
      value  = taint.value
      effect = "NO_SCHEDULE"
    }
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size] # the autoscaler's
  }

  depends_on = [aws_iam_role_policy_attachment.node]
}

# What the autoscaler reads while a group is empty: see locals.tf.
resource "aws_autoscaling_group_tag" "hint" {
  for_each               = local.hints
  autoscaling_group_name = aws_eks_node_group.pool[each.value.pool].resources[0].autoscaling_groups[0].name
  tag {
    key                 = "k8s.io/cluster-autoscaler/node-template/${each.value.key}"
    value               = each.value.value
    propagate_at_launch = false
  }
}
