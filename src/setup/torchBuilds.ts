/** Builds of torch that can be asked for. */
export const TORCH_BUILDS = ['auto', 'cpu', 'cuda'] as const;
export type TorchChoice = (typeof TORCH_BUILDS)[number];
