output "pools" {
  description = "Label values that a pod may ask for, and how many nodes each pool can grow to."
  value       = { for name, pool in google_container_node_pool.pool : name => pool.autoscaling[0].total_max_node_count }
}
