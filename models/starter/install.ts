/** Installs or repairs the model that comes with Vignette and returns its folder; quick when it is there already. */
export async function installStarter(modelsFolder: string): Promise<string> {
  void modelsFolder
  throw new Error('not yet written')
}
