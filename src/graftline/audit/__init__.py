"""Questions about a store that an auditor asks without trusting it: is it whole, can it be made again."""
