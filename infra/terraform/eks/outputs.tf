output "pools" {
  description = "Label values that a pod may ask for, and how many nodes each pool can grow to."
  value       = { for name, pool in aws_eks_node_group.pool : name => pool.scaling_config[0].max_size }
}
